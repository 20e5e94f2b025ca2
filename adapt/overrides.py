"""From text to a mapping: YAML without surprises, and `a.b=value` overrides."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

import yaml

from adapt.other_data import forget
from adapt.plug import SECTIONS, UserError, names, schema


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars (1e-3 is a float, `no` is a word), no repeated keys, no aliases."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed in a recipe")
        return super().compose_node(parent, index)

    def construct_object(self, node, deep=False):
        if node.tag.rpartition(":")[2] not in ("bool", "null", "int", "float", "str", "seq", "map"):
            raise yaml.YAMLError(f"tag {node.tag!r} is not allowed in a recipe (line {node.start_mark.line + 1})")
        return super().construct_object(node, deep)

    def construct_mapping(self, node, deep=False):
        seen = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.YAMLError(f"a key is a {type(key).__name__}, not a word (line {key_node.start_mark.line + 1})")
            if key in seen:
                raise yaml.YAMLError(f"key {key!r} is repeated (line {key_node.start_mark.line + 1})")
            seen.append(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes a text that YAML 1.1 or 1.2 reads as anything else, such as '1e3'."""


_Loader.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
]:
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    text = loader.construct_scalar(node)
    # base ten always (YAML 1.1 reads 010 as 8); Python refuses absurdly long digits, and so do we
    return int(text) if len(text) < 1000 else text


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str, place: str) -> Any:
    """Read YAML with this package's rules.

    Raises:
        UserError: not YAML, a repeated key, an alias, a tag; the message starts with `place`.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"{place}: nested too deeply.") from None
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:  # `!!bool foo`, "\UFFFFFFFF"
        problem = " ".join(str(error).split())
        raise UserError(f"{place}: not readable as YAML: {problem[:300]}") from None


def write_yaml(value: Any, **layout: Any) -> str:
    """YAML that `parse_yaml` reads as the same value.

    Args:
        layout: of `yaml.dump`.
    """
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, **{"sort_keys": False} | layout)


def override(raw: dict, overrides: Iterable[str]) -> dict:
    """Apply `a.b=value` overrides to a recipe's mapping; values are read by the same YAML rules as the file.

    Naming another plug-in starts its section afresh: what the file said was for the old one. `data.path=…` alone means
    `data.source=auto`, when the recipe's own source has no path. What the file chose for its own data is forgotten with them.
    """
    raw = json.loads(json.dumps(raw, default=str))  # a deep copy with string keys
    pairs = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UserError(f"{text[:80]!r} is not an override. Write key=value, such as train.epochs=5.")
        pairs.append((path.strip().split("."), _value(value, path.strip())))
    # a plug-in's section that is given whole comes before its options, as its name alone does: they mean the same in any order
    pairs.sort(key=lambda pair: not (len(pair[0]) == 1 and pair[0][0] in SECTIONS and isinstance(pair[1], dict)))
    given = {".".join(path) for path, _ in pairs}
    source = _source(raw.get("data"))
    pathless = source in names("data") and "path" not in schema("data", source).model_fields
    if pathless and "data.path" in given and not given & {"data", "data.source"}:
        pairs.insert(0, (["data", "source"], "auto"))
    for path, value in pairs:
        said = value if path == ["data", "source"] else _source(value) if path == ["data"] else None
        if said in names("data") and said != source:
            forget(raw, source, said)
    said, own = [value for path, value in pairs if path == ["distill", "student"]], raw.get("distill")
    if said and isinstance(own, dict) and own.get("student") != said[-1]:
        own.pop("pretrained", None)  # the start that the file chose is its own student's
    for path, value in pairs:  # first of all
        if len(path) > 1:
            _restart(raw, path, value)
    for path, value in pairs:
        _set(raw, path, value)
    return raw


def _value(text: str, path: str) -> Any:
    """An override's value.

    Raises:
        UserError: it is not YAML, or YAML takes its end for a comment, such as that of `photos #2`, so that a word would be cut.
    """
    value = parse_yaml(text, path)
    if isinstance(value, dict | list):
        return value
    ends = [token.end_mark.index for token in yaml.scan(text, _Loader) if isinstance(token, yaml.ScalarToken)]
    rest = text[max(ends, default=0) :].strip()
    if rest.startswith("#"):
        quoted = shlex.quote(f"{path}={json.dumps(text.strip(), ensure_ascii=False)}")
        raise UserError(f"{path}: YAML takes {rest[:80]!r} for a comment. Leave it out, or quote it: {quoted}")
    return value


def _source(data: Any) -> str | None:
    """The source that a section `data` names; none if it is no such section."""
    source = data.get("source") if isinstance(data, dict) else None
    return source if isinstance(source, str) else None


def _restart(raw: dict, path: list[str], value: Any) -> None:
    """If the override names another plug-in, forget what the file said in its section."""
    section, *index, last = path
    if section not in SECTIONS or not isinstance(value, str):
        return
    kind, key, is_list = SECTIONS[section]
    if last != key or len(index) != int(is_list) or value not in names(kind):
        return
    old = raw.get(section)
    if is_list:
        old = old[int(index[0])] if isinstance(old, list) and index[0] in map(str, range(len(old))) else None
    if isinstance(old, dict) and old.get(key) != value:
        old.clear()


def _set(raw: Any, path: list[str], value: Any) -> None:
    place = []
    for step, then in zip(path, [*path[1:], None], strict=True):
        place.append(step)
        dotted = ".".join(place)
        if isinstance(raw, list):
            if not (step.isascii() and step.isdigit() and int(step[:9]) <= len(raw)):
                raise UserError(f"{dotted}: {step!r} is not a position in a list of {len(raw)}. Use 0 to {len(raw)}.")
            if int(step) == len(raw):
                raw.append(None)
            step = int(step)
        elif not isinstance(raw, dict):
            raise UserError(f"{dotted}: {'.'.join(place[:-1])} is the value {repr(raw)[:80]}, which has no option {step!r}.")
        if then is None:
            raw[step] = value
            return
        inner = raw.get(step) if isinstance(raw, dict) else raw[step]
        if inner is None:
            inner = raw[step] = [] if then == "0" else {}
        raw = inner


def taken(arguments: list[str], keys: Iterable[str]) -> dict[str, str]:
    """Take a verb's own arguments, `KEY=value`, out of the others: key → value, in their order.

    Raises:
        UserError: one is given twice.
    """
    keys, given = set(keys), {}
    for argument in list(arguments):
        name, _, value = argument.partition("=")
        if name in keys:
            if name in given:
                raise UserError(f"{name}: given twice. Give it once.")
            given[name] = value
            arguments.remove(argument)
    return given
