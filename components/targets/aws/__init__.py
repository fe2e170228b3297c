"""The `aws` target: ECS Fargate and what belongs to it. `settings` imports no Pulumi."""
