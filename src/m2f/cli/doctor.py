"""`m2f doctor`."""

from __future__ import annotations

from m2f.cli import options
from m2f.cli.terminal import reported, show, show_json, table, working


@reported
def doctor(json: options.Json = False, debug: options.Debug = False) -> None:
    r"""Say what this machine can do with m2f, and what to install for the rest.

    \b
    Examples:
      m2f doctor
      m2f doctor --json > machine.json
    """
    with working("looking"):
        from m2f.doctor import doctor

        report = doctor()
    if json:
        show_json(report.to_json())
        return
    machine = table("machine", "")
    for fact in (*report.machine, *report.gpu):
        machine.add_row(fact.name, fact.value)
    libraries = table("library", "version", "for")
    for found in report.libraries:
        libraries.add_row(found.name, found.version or f"no; {found.hint}", found.use)
    verdicts = table("can this machine ...", "", "")
    for verdict in report.verdicts:
        verdicts.add_row(verdict.use, verdict.state, verdict.why)
    for part in (machine, libraries, verdicts):
        show(part)
