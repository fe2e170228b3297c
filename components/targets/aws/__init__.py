"""The target `aws`: tasks of ECS Fargate. `spec`, `settings` and `operations` import no Pulumi."""
