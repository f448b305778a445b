"""What `pip install` of the wheel gives: every module and template, and a command that needs no privilege."""

import tomllib
from importlib import import_module
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from k8snetc.backends import registry
from tests.packaging.conftest import Installation
from tests.support.repository import PACKAGE_FOLDERS, ROOT, files

pytestmark = pytest.mark.xdist_group("wheel")

NOT_SHIPPED = {"ruff.toml", "README.md"}


def sources() -> list[Path]:
    return [p for p in files() if p.parts[0] in PACKAGE_FOLDERS]


def test_every_source_and_template_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shipped = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert shipped == {f"k8snetc/{p.as_posix()}" for p in sources() if p.name not in NOT_SHIPPED}


def test_packages_are_the_folders_with_an_init() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(("k8snetc", *p.parent.parts)) for p in sources() if p.name == "__init__.py"}
    assert listed == sorted(found)


def test_every_package_is_typed_and_says_what_it_is() -> None:
    for init in (p for p in sources() if p.name == "__init__.py"):
        assert (ROOT / init.parent / "py.typed").is_file(), init.parent
        assert (ROOT / init).read_text().startswith('"""'), f"{init} has no docstring"


def test_every_module_imports_nothing_but_the_lock(installation: Installation) -> None:
    """Each module imports with the locked dependencies alone: the kernel's bindings are lazy."""
    modules = sorted(
        str(PurePosixPath("k8snetc", p.with_suffix("")).as_posix())
        .replace("/", ".")
        .removesuffix(".__init__")
        for p in sources()
        if p.suffix == ".py" and p.name != "__main__.py"
    )
    program = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    program += "print(sorted({'bcc', 'nftables'} & sys.modules.keys()))"
    done = installation.run("python", "-c", program)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_command_runs_without_privilege(installation: Installation) -> None:
    done = installation.run("k8snetc", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: k8snetc ")


MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.7.7
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.7]}]
"""


@pytest.mark.parametrize("backend", registry.NAMES)
def test_compile_runs_without_privilege(installation: Installation, backend: str) -> None:
    """The wheel alone compiles for every back end; one that is not written yet is a usage error, no traceback."""
    manifest = installation.folder / "web.yaml"
    manifest.write_text(MANIFEST)
    done = installation.run(
        "k8snetc", "compile", str(manifest), "--backend", backend, "--cluster-cidr", "10.244.0.0/16"
    )
    assert "Traceback" not in done.stderr
    if hasattr(import_module(f"k8snetc.backends.{backend}"), "BACKEND"):
        assert done.returncode == 0, done.stderr
        assert "10.96.7.7" in done.stdout
        assert "10.244.1.7" in done.stdout
    else:
        assert done.returncode == 3
