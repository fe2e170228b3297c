import argparse
import sys
from pathlib import Path

from tidemill.runtime.errors import TidemillError
from tidemill.runtime.service import run
from tidemill.runtime.settings import load_settings
from tidemill.runtime.validation.service import create_app
from tidemill.runtime.validation.settings import ValidationSettings


def main() -> int:
    """Run the validation service; return its exit code."""
    parser = argparse.ArgumentParser(prog="tidemill.runtime.validation")
    parser.add_argument("--settings", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.settings, ValidationSettings)
        run(create_app(settings), settings.listen)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
