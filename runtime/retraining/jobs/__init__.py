"""Ways to run a training job: processes, the runner, ECS tasks."""
