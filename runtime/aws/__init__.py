"""What runs beside a service in a task of ECS: its files are put in place, its folders are kept in S3.

    python -m tidemill.runtime.aws prepare    before the service: config, secrets, what its folders held
    python -m tidemill.runtime.aws keep       beside it, until after its end: what its folders hold now
    python -m tidemill.runtime.aws train -- COMMAND...    a training which leaves word of how it ended

`TIDEMILL_TASK` names the object with the `TaskFiles` of the task.
"""
