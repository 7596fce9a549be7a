"""The table of services: a row is all that the mesh needs to know of a new service."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gateway.limits.cost import RULES
from meshgate.services import SERVICES, Service

ANOTHER_ROW = """
import json, sys
import meshgate.rpc.tls13
from meshgate import services
methods = {"ListModels": services.Method(services.CostRule.TEXTS, True)}
row = services.Service("models", "ModelService", 8454, "list", methods)
services.SERVICES[row.name] = row
import certs
from gateway import routes
from gateway.authorisation import policy
from gateway.limits import cost
from meshgate.cli.main import app
from meshgate.rpc import contract
from meshgate.supervisor import paths
from pathlib import Path
from typer.main import get_command
path = "/meshgate.v1.ModelService/ListModels"
layout = paths.Layout(Path("home"), Path("configs"), paths.PORTS)
print(json.dumps({
    "route": routes.MODEL_ROUTES[path].backend,
    "rule": path in cost.RULES,
    "scope": policy.DEFAULT_SCOPES["list"],
    "default": policy.TenantPolicy(defaults={"models": "a"}).defaults["models"],
    "certificate": "models" in certs.NAMES,
    "flag": "models_port" in [each.name for each in get_command(app).commands["up"].params],
    "contract": path in contract.METHODS,
    "command": layout.command("models")[1:3],
    "backend": layout.backends()["models"],
}))
"""


def test_one_more_row_is_all_that_the_mesh_needs_to_know_of_a_service() -> None:
    ran = subprocess.run([sys.executable, "-c", ANOTHER_ROW], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == {
        "route": "models",
        "rule": True,
        "scope": ["/meshgate.v1.ModelService/*"],
        "default": "a",
        "certificate": True,
        "flag": True,
        "contract": True,
        "command": ["-m", "services.models"],
        "backend": "127.0.0.1:8454",
    }


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_row_names_each_method_of_its_service(service: Service) -> None:
    """A method that is new in the contract needs a cost rule and a word on repeating it."""
    assert set(service.methods) == {method.name for method in service.descriptor().methods}
    assert {f"/{service.full_name}/{name}" for name in service.methods} <= RULES.keys()


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_only_methods_of_one_message_are_repeatable(service: Service) -> None:
    streams = {method.name for method in service.descriptor().methods if method.client_streaming}
    assert not streams & set(service.repeatable)
