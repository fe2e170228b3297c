"""Where retraining jobs run: as processes, in the runner service, or as ECS tasks."""
