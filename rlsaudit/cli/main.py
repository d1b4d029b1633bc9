"""The command group and the only place where exceptions become exit codes."""

from __future__ import annotations

import logging
import os
import sys

import click
import psycopg

from rlsaudit import __version__, interrupt
from rlsaudit.cli.audit import audit
from rlsaudit.cli.checks import checks, explain
from rlsaudit.cli.config import config
from rlsaudit.cli.demo import demo
from rlsaudit.cli.diff import diff
from rlsaudit.cli.doctor import doctor
from rlsaudit.cli.evidence import evidence
from rlsaudit.cli.fix import fix
from rlsaudit.cli.fleet import fleet
from rlsaudit.cli.init import init
from rlsaudit.cli.merge import merge
from rlsaudit.cli.probe import probe
from rlsaudit.cli.replay import replay
from rlsaudit.cli.report import report
from rlsaudit.cli.scan import scan
from rlsaudit.cli.snapshot import snapshot
from rlsaudit.cli.verify import verify
from rlsaudit.errors import RlsauditError
from rlsaudit.source.dsn import redact

INTERRUPTED = 130
DEBUG = "RLSAUDIT_DEBUG"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rlsaudit")
def cli() -> None:
    """Audit PostgreSQL Row-Level Security and find cross-tenant leaks, with evidence that replays.

    Exit codes: 0 clean; 1 findings, or cells that could not be tested; 2 usage, configuration or input; 3 not
    trustworthy (cannot connect, nothing to test, the probe is blind, proof and probe disagree); 130 or 143
    interrupted: once the attack has begun, the reports then say what was found until there.
    """


for _command in (
    scan,
    audit,
    probe,
    diff,
    fix,
    fleet,
    init,
    merge,
    replay,
    report,
    verify,
    evidence,
    snapshot,
    demo,
    explain,
    checks,
    config,
    doctor,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit.  No traceback for anything a user can cause; RLSAUDIT_DEBUG=1 shows them all."""
    interrupt.watch()
    # What psycopg says there of a connection that a signal cut off is told as what ended the run, in one line.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        _say("interrupted; nothing was written")
        sys.exit(interrupt.exit_code() or INTERRUPTED)


def _run() -> int:
    try:
        outcome = cli.main(standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; nothing was written")
        return interrupt.exit_code() or INTERRUPTED
    except click.ClickException as wrong:
        wrong.show()
        return 2
    except RlsauditError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except psycopg.Error as error:
        _debug()
        _say(f"the database ended the conversation: {' '.join(str(error).split())}")
        return 3
    except Exception as error:  # noqa: BLE001 - a defect of rlsaudit: named as one, never a verdict
        _debug()
        _say(f"defect of rlsaudit: {type(error).__name__}: {error}; set {DEBUG}=1 to see where, and please report it")
        return 3
    return outcome if isinstance(outcome, int) else 0


def _debug() -> None:
    if os.environ.get(DEBUG):
        raise  # noqa: PLE0704 - called from an except block only


def _say(line: str) -> None:
    one = " ".join(line.split())
    click.echo(f"rlsaudit: {redact(one)}", err=True)
