"""What `adapt demo` is asked for, as it is typed."""

from __future__ import annotations

import getpass
import ipaddress
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapt.overrides import taken
from adapt.plug import UserError, nearest

HELP = """adapt demo [recipe=NAME | run=FOLDER | checkpoint=NAME | file=FILE.onnx]

  recipe=NAME|FILE.yaml   its model; overrides of the recipe may follow
  run=runs/NAME-HASH      its model as it comes and adapted, its students, and
                          their exported files
  checkpoint=NAME         an embedded one, a local folder, a hub id,
                          open_clip:ARCH/PRETRAINED or segment_anything:…
  file=model.int8.onnx    an exported student, which answers alone
                          Beside these the four embedded checkpoints are there.
  port=7860               where the page is; port=0: any free one
  host=127.0.0.1          who may reach it: this machine alone; 0.0.0.0: all
                          that reach this machine (then set auth)
  auth=FILE               a line name:password for each person; auth=ask asks
                          for one. Passwords are never typed into a command.

Models load when they are first asked, and those unused longest make room.
Pictures stay on this machine, in a folder that is removed at the end.
Ctrl-C ends the demo. Scripts call it with gradio_client: classify, segment,
detect."""
OWN = ("checkpoint", "file", "port", "host", "auth")
PORT = 7860
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """Where the page is and who may see it; and whose model it shows, beside a recipe's."""

    checkpoint: str | None = None
    """As `model.checkpoint`; its family is found out."""
    file: str | None = None
    """An exported student."""
    port: int = PORT
    """0: any free one."""
    host: str = HOST
    """A name or an address of this machine."""
    people: tuple[tuple[str, str], ...] = ()
    """Names and passwords; none: whoever reaches the page may use it."""

    @property
    def open(self) -> bool:
        """Can others than this machine's users reach it without a password?"""
        try:
            alone = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            alone = False
        return not (alone or self.people)


def parse_request(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of a recipe.

    Raises:
        UserError: one is repeated, or not what it takes.
    """
    given = taken(arguments, OWN)
    whose = [name for name in ("recipe", "run") if any(argument.startswith(f"{name}=") for argument in arguments)]
    if arguments and not whose:
        hint = "; overrides need a recipe= or run= before them" if "=" in arguments[0] else ""
        known = nearest(arguments[0].partition("=")[0], (*OWN, "recipe", "run"))
        raise UserError(f"demo: {arguments[0]!r} is unknown{hint}.{known} See: adapt help demo")
    own = [name for name in ("checkpoint", "file") if name in given]
    if len(own) + bool(whose) > 1:
        raise UserError(f"{own[0]}: given with {[*own, *whose][1]}=. Give one of them.")
    if own and not given[own[0]]:
        raise UserError(f"{own[0]}: empty. Write a name behind it, such as checkpoint=clip-tiny or file=model.onnx.")
    people = _people(given["auth"]) if "auth" in given else ()
    return Request(
        given.get("checkpoint"), given.get("file"), _port(given.get("port", str(PORT))), given.get("host") or HOST, people
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise UserError(f"port: {text[:40]!r} is not a number from 0 to 65535. Write port={PORT}, or port=0 for any free one.")
    return int(text)


def _people(given: str, ask: Callable[[str], str] = getpass.getpass) -> tuple[tuple[str, str], ...]:
    """Names and passwords of a file, or of one person who is asked for."""
    if given == "ask":
        if not sys.stdin.isatty():
            raise UserError("auth: there is no terminal to ask in. Write auth=FILE, a file with a line name:password.")
        return (_person(f"{input('Name: ')}:{ask('Password: ')}", "what was typed"),)
    path = Path(given).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UserError(f"auth: cannot read {given!r}: {why}. Give a file with a line name:password, or auth=ask.") from None
    found = tuple(_person(line, f"line {number} of {given!r}") for number, line in enumerate(lines, 1) if line.strip())
    if not found:
        raise UserError(f"auth: {given!r} has no line name:password, so nobody could use the demo.")
    return found


def _person(line: str, where: str) -> tuple[str, str]:
    name, _, password = line.strip().partition(":")
    if not name or not password:  # the line itself is not shown: it may be a password
        raise UserError(f"auth: {where} is not name:password. Write both, such as anna:a-long-password.")
    return name, password
