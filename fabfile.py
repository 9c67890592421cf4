"""Wiring: which task has which name, and how Fabric runs them."""

import sys
from pathlib import Path

# Fabric imports this file by its path; its neighbours must be found from any directory.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fabric.main import program
from invoke import Collection

from tasks import (
    audit,
    backup,
    balancer,
    client,
    configure,
    deploy,
    doctor,
    environments,
    gc,
    install,
    logs,
    plan,
    postgres,
    registry,
    rehearse,
    restore,
    sandbox,
    schedule,
    service,
    status,
    stream,
    tls,
    tunnel,
    upgrade,
    users,
    verify,
)
from tasks import backup as backups
from tasks import selftest as check
from tasks.engine.executor import adopt

adopt(program)

namespace = Collection(
    install.install,
    configure.configure,
    configure.configure_aws,
    configure.configure_auth,
    deploy.deploy,
    verify.verify,
    plan.plan,
    service.start,
    service.stop,
    service.restart,
    status.status,
    logs.logs,
    client.client,
    doctor.doctor,
    restore.restore,
    upgrade.upgrade,
    upgrade.rollback,
    environments.use,
    environments.environments,
    gc.gc,
    balancer.balancer,
    rehearse.rehearse,
    check.test,
)
# The guide's names. Neither may be an alias: an alias of a namespace's default lands inside it.
namespace.add_task(deploy.deploy, name="deploy-service")
namespace.add_task(backup.backup, name="backup-db")

tunnels = Collection("tunnel", tunnel.close, tunnel.status)
tunnels.add_task(tunnel.tunnel, name="open", default=True)
saved = Collection(
    "backup", backup.verify, backups.list_, backups.prune, backups.download, schedule.schedule
)
saved.add_task(backup.backup, name="now", default=True)
saved.add_task(stream.stream)
audited = Collection("audit", audit.log)
audited.add_task(audit.audit, name="now", default=True)
for collection in (
    tunnels,
    saved,
    audited,
    Collection(
        "registry",
        registry.list_,
        registry.show,
        registry.promote,
        registry.demote,
        registry.copy,
    ),
    Collection(
        "users",
        users.list_,
        users.add,
        users.remove,
        users.passwd,
        users.reset_admin,
        users.grant,
        users.revoke,
        users.import_,
    ),
    Collection("postgres", postgres.install, postgres.migrate, postgres.psql),
    Collection("tls", tls.enable, tls.renew, tls.show, tls.disable),
    Collection("sandbox", sandbox.up, sandbox.down, sandbox.list_),
):
    namespace.add_collection(collection)
