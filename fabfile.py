"""Wiring: which task has which name, and how Fabric runs them."""

import sys
from pathlib import Path

# Fabric imports this file by its path; its neighbours must be found from any directory.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fabric.main import program
from invoke import Collection

from tasks import configure, deploy, install, plan, service
from tasks.executor import Executor

program.executor_class = Executor

namespace = Collection(
    install.install,
    configure.configure,
    configure.configure_aws,
    configure.configure_auth,
    deploy.deploy,
    plan.plan,
    service.start,
    service.stop,
    service.restart,
    service.status,
    service.logs,
)
namespace.add_task(deploy.deploy, name="deploy-service")
