"""The databases of a stack on AWS, made by the task which makes them there, on a real Postgres."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from tests.support.postgres import Postgres, postgres_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as found:
        connection = connect(found, "tidemill", found.password, "postgres")
        with connection.cursor() as cursor:
            # What RDS calls its master user: no superuser, but one who may make databases and roles.
            cursor.execute("CREATE ROLE master LOGIN CREATEDB CREATEROLE PASSWORD 'm4ster'")
        connection.close()
        yield found


def connect(server: Postgres, user: str, password: str, database: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(host="127.0.0.1", port=server.port, user=user, password=password, dbname=database)
    connection.autocommit = True
    return connection


def make(server: Postgres, name: str, password: Path, *, master: str = "m4ster") -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "master", "PGPASSWORD": master,
        "PGSSLMODE": "disable",
    }  # fmt: skip
    command = [sys.executable, "-m", "tidemill.runtime.cloud.databases", name, str(password)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_a_database_has_one_role_and_both_can_be_made_again(server: Postgres, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text('it\'s "quoted" \\ ü')
    done = make(server, "mlflow_accounts", password)
    assert (done.returncode, done.stderr) == (0, "")
    own = connect(server, "mlflow_accounts", 'it\'s "quoted" \\ ü', "mlflow_accounts")
    with own.cursor() as cursor:
        cursor.execute("CREATE TABLE public.users (id integer)")
        cursor.execute("INSERT INTO users VALUES (1)")
    own.close()
    password.write_text("another")
    assert make(server, "mlflow_accounts", password).returncode == 0
    own = connect(server, "mlflow_accounts", "another", "mlflow_accounts")
    with own.cursor() as cursor:
        cursor.execute("SELECT id FROM users")
        assert cursor.fetchall() == [(1,)], "what was in it stays"
    own.close()
    with pytest.raises(psycopg2.OperationalError):
        connect(server, "mlflow_accounts", 'it\'s "quoted" \\ ü', "mlflow_accounts")


def test_a_role_reaches_its_own_database_alone(server: Postgres, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pw")
    assert make(server, "grafana", password).returncode == 0
    assert make(server, "mlflow", password).returncode == 0
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connect(server, "grafana", "pw", "mlflow")


def test_a_refusal_is_said_without_a_password(server: Postgres, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pw-of-the-role")
    done = make(server, "mlflow", password, master="wr0ng")
    assert done.returncode == 3
    assert "Postgres does not answer" in done.stderr
    assert "wr0ng" not in done.stderr and "pw-of-the-role" not in done.stderr
