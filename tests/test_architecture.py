"""The house's rules: imports point one way, names hide no library, YAML does not rot, files stay small."""

from __future__ import annotations

import ast
import graphlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from adapt.models.checkpoint import embedded
from adapt.overrides import parse_yaml
from adapt.plug import ROOT, SECTIONS, names
from adapt.prompting.text import words
from adapt.recipe import Prompts, available, find, load_recipe
from adapt.suite import load_suite

PLUGS = {kind for kind, _, _ in SECTIONS.values()} | {"students"}
FILES = sorted(ROOT.rglob("*.py"))
CODE = [path for path in FILES if "assets" not in path.parts]

# Imports point downwards, from one line to a later one; typing-only imports too. A folder's own files may import each other.
LAYERS = [
    {"finetune", "__main__"},
    {"launch"},
    {"cli"},
    {"commands"},
    {"lists", "completion"},
    {"manual"},
    {"demo"},
    {"pipeline"},
    {"verbs"},
    {"report"},
    PLUGS - {"students"},
    {"students"},
    {"train", "prompting"},
    {"vision"},
    {"run", "options", "suite", "literature"},
    {"recipe"},
    {"overrides", "mistakes"},
    {"other_data", "architectures", "provenance", "measures"},
    {"contracts", "records"},
    {"plug", "hardware", "progress", "ahead"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
PROBES = {
    "models/base.py": 1,  # peft wraps a backbone or does not
    "verbs/merge.py": 1,  # transformers marks a model that it has quantised
    "methods/memory.py": 2,  # transformers and timm offer checkpointing by different names
    "models/dinov2/family.py": 1,  # configurations without register tokens have no such field
    "models/sam/checkpoints.py": 1,  # torch's modules with weights of their own
    "models/clip/open_clip.py": 1,  # open_clip gives SigLIP a bias and CLIP none
    "data/scan.py": 1,  # Pillow's formats with several frames
    "vision/classes.py": 2,  # datasets writes lists in two ways; a feature has names or has none
}
"""File → its `hasattr` and three-argument `getattr`: of other libraries' objects alone, never of ours."""


def home(path: Path) -> str:
    """The child of adapt that a file is or lies in."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All that a file's syntax tree has."""
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """The trees are large, and nobody else wants them."""
    yield
    nodes.cache_clear()


@cache
def homes() -> dict[str, list[str]]:
    """What can be imported here → the packages that have it."""
    return importlib.metadata.packages_distributions()


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules of adapt that a file imports, anywhere in it."""
    found = set()
    for node in nodes(path):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}: a relative import"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "adapt":
            found |= {module(f"{node.module}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {module(alias.name) for alias in node.names if alias.name.startswith("adapt.")}
    return frozenset(found - {"adapt"})


@cache
def module(name: str) -> str:
    """The module that a dotted name is, or is a part of."""
    while name != "adapt" and not (place(name).with_suffix(".py").exists() or (place(name) / "__init__.py").exists()):
        name = name.rpartition(".")[0]
    return name


def place(name: str) -> Path:
    return ROOT.parent.joinpath(*name.split("."))


def test_imports_point_one_way():
    wrong = {}
    for path in CODE:
        if path == ROOT / "__init__.py":
            continue
        others = {name.split(".")[1] for name in imported(path)} - ({home(path)} if path.parent != ROOT else set())
        if found := [name for name in others if RANK[name] <= RANK[home(path)]]:
            wrong[path.relative_to(ROOT).as_posix()] = found
    assert not wrong


def test_no_import_is_in_a_circle():
    names = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    # a package's light `__init__` hands over to its own modules when it is called; they may read it
    graph = {
        name: {other for other in imported(path) if other != name and not name.startswith(f"{other}.")}
        for path, name in names.items()
    }
    order = graphlib.TopologicalSorter(graph)
    order.prepare()  # raises CycleError, with the circle


def test_our_own_objects_are_not_probed():
    found: dict[str, int] = {}
    for path in CODE:
        for node in nodes(path):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3):
                name = path.relative_to(ROOT).as_posix()
                found[name] = found.get(name, 0) + 1
        assert "runtime_checkable" not in path.read_text()
    assert found == PROBES
    assert sum(PROBES.values()) <= 15


def test_only_verbs_choose_a_plug_in_by_name():
    for path in CODE:
        for node in nodes(path):
            literal = isinstance(node, ast.Call) and len(node.args) == 2 and isinstance(node.args[1], ast.Constant)
            if literal and ast.unparse(node.func) in ("load", "plug.load"):
                assert home(path) == "verbs", path


def test_verbs_are_functions_of_a_session():
    """Composition: of the classes there, none inherits from another of ours."""
    for path in (ROOT / "verbs").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                assert not node.bases, f"{path.name}: {node.name}"


def test_no_child_hides_a_library():
    children = {path.stem for path in ROOT.iterdir() if not path.stem.startswith(("_", "."))}
    libraries = set(homes()) - {"adapt"}
    assert not children & (set(sys.stdlib_module_names) | libraries)


def test_importing_adapt_does_nothing():
    code = "import sys; before = set(sys.modules); import adapt; print(*sorted(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["adapt"]


def test_schemas_come_without_heavy_imports():
    code = f"""
import sys
from adapt import plug
for kind in {sorted(PLUGS - {"students"})}:
    for name in plug.names(kind):
        plug.schema(kind, name)
    print(kind, *{{"torch", "transformers", "datasets", "onnx", "timm"}} & set(sys.modules))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == sorted(PLUGS - {"students"}), "the first line with more names the kind"


@pytest.mark.parametrize("kind", sorted(PLUGS - {"students"}))
def test_every_option_is_documented(kind):
    from adapt.plug import schema

    for name in names(kind):
        for option, field in schema(kind, name).model_fields.items():
            assert field.description, f"{kind}/{name}.{option}"


@pytest.mark.parametrize("name", available("recipes"))
def test_every_recipe_resolves(name):
    text = find("recipes", name).read_text()
    recipe = load_recipe(name)
    assert len(text.splitlines()) <= 30
    assert text.startswith("# ")
    words(recipe.prompts.model_copy(update={"classes": None}), ["a"])
    assert recipe.model.checkpoint in embedded() or "/" in recipe.model.checkpoint
    if name.startswith("zoo/"):
        assert "openmoji" not in getattr(recipe.data, "hands", []), "the target hand is never trained on"


@pytest.mark.parametrize("name", available("prompts"))
def test_every_prompt_file_resolves(name):
    text = find("prompts", name).read_text()
    content = parse_yaml(text, name)
    assert text.startswith("# ") and ": " in text.splitlines()[0], "what it is for and its source are named first"
    labels = list(content.get("classes", {"x": 0}))
    found = words(Prompts(templates=name, classes=name if "classes" in content else None), labels)
    assert len(found.classes) == len(labels)
    assert all(template.count("{}") == 1 for template in found.templates)


@pytest.mark.parametrize("name", available("suites"))
def test_every_suite_resolves(name):
    from adapt.verbs.guests import check

    suite = load_suite(name)
    assert find("suites", name).read_text().startswith("# "), "the source is named first"
    lists = {text for each in suite.sets if each.prompts for text in (each.prompts.templates, each.prompts.classes)}
    assert all(find("prompts", text) for text in lists if text)
    if all(each.data and each.asked() for each in suite.sets):
        recipe = load_recipe("clip_lora", [f"canary={name}"])
        assert len(recipe.canary) == len(suite.sets)
        check(recipe)


def test_imagenets_templates_are_open_clips():
    (folder,) = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", Path(folder) / "zero_shot_metadata.py")
    lists = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lists)  # alone: all of open_clip takes seconds
    for name, theirs in (("imagenet", lists.OPENAI_IMAGENET_TEMPLATES), ("simple", lists.SIMPLE_IMAGENET_TEMPLATES)):
        ours = words(Prompts(templates=name), ["cat"]).templates
        assert [template.replace("{}", "cat") for template in ours] == [template("cat") for template in theirs]


def test_files_have_one_subject():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    most = {path: 680 if path.name == "contracts.py" else 400 for path in FILES}  # those are one subject, and mostly docstrings
    assert not {path.relative_to(ROOT).as_posix(): count for path, count in lines.items() if count > most[path]}


def test_functions_have_one_subject():
    long = {}
    for path in CODE:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                most = 100 if node.name == "fit" else 50  # the one training loop is a function of about a hundred lines
                if (count := node.end_lineno - node.lineno) >= most:
                    long[f"{path.relative_to(ROOT).as_posix()}: {node.name}"] = count
    assert not long


def test_every_library_that_is_imported_is_declared():
    declared = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    listed = [*declared["dependencies"], *(name for extra in declared["optional-dependencies"].values() for name in extra)]
    ours = {_plain(re.split(r"[^\w.-]", name)[0]) for name in listed} | {"adapt_vision"}
    for path in FILES:
        for node in nodes(path):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module]
            for library in {name.split(".")[0] for name in found} - set(sys.stdlib_module_names) - {"adapt"}:
                assert {_plain(home) for home in homes().get(library, [library])} & ours, f"{path.name}: {library}"


def test_the_lock_has_a_hash_for_each_version_and_every_dependency():
    text = (ROOT.parent / "requirements.lock").read_text()
    locked = re.findall(r"^([\w.-]+)==(\S+)(?: ;[^\n]*)? \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(locked) == len(re.findall(r"^\S", text, re.MULTILINE)), "a line is no name==version with hashes"
    declared = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    wanted = [*declared["dependencies"], *(name for extra in ("test", "docs", "notebooks", "assets") for name in extras[extra])]
    needed = {_plain(re.split(r"[^\w.-]", name)[0]) for name in wanted}
    assert needed <= {_plain(name) for name, _ in locked}
    assert "://" not in text


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def test_no_address_and_no_machine_path_is_committed():
    root = ROOT.parent
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    hosts = ["py" + "pi.org", "pythonhosted" + ".org", "registry." + "npmjs", "/ro" + "ot/", "/wo" + "rk/"]
    for name in tracked:
        path = root / name
        if path.suffix in {".parquet", ".safetensors", ".png", ".gif"} or not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        assert not [host for host in hosts if host in text], name
