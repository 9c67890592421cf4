"""The instance of a server: made once, found by its tag, stopped and started, and taken away."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import Address, Instance
from tasks.laptop.account import mend
from tasks.laptop.account.patience import awaited, patiently
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

GONE = ("terminated", "shutting-down")

# A new instance profile is refused for seconds to minutes (packer #12303 tried over two minutes).
PROFILE_PATIENCE = 180

STATE_PATIENCE = 600  # the waiters' own: 15 s × 40

SEVERAL = (
    "{count} instances bear the tag remote-mlflow={unit}: {ids}. Take the tag off those that are "
    "not meant, or remove all of them: ./fab aws.destroy"
)


# -- looking -----------------------------------------------------------------------------------


def all_of(account: Account, names: Names) -> list[dict[str, Any]]:
    """Return all instances that bear this server's tag, but those that are gone."""
    pages = account.client("ec2").get_paginator("describe_instances")
    found = [
        one
        for page in pages.paginate(Filters=names.bears())
        for each in page["Reservations"]
        for one in each["Instances"]
    ]
    return [one for one in found if one["State"]["Name"] not in GONE]


def find(account: Account, names: Names) -> dict[str, Any] | None:
    """Return this server's instance as EC2 describes it; raises Exit where there are several."""
    found = all_of(account, names)
    if len(found) > 1:
        ids = ", ".join(one["InstanceId"] for one in found)
        raise Exit(SEVERAL.format(count=len(found), unit=names.unit, ids=ids))
    return found[0] if found else None


def described(account: Account, id: str) -> dict[str, Any]:
    """Return an instance as EC2 describes it now."""
    found = patiently(lambda: account.client("ec2").describe_instances(InstanceIds=[id]))
    return dict(found["Reservations"][0]["Instances"][0])


def part(account: Account, found: Mapping[str, Any]) -> Instance:
    """Say how an instance is set up, in the words of what is wanted."""
    ec2, id = account.client("ec2"), found["InstanceId"]
    disks = [
        one["Ebs"]["VolumeId"]
        for one in found.get("BlockDeviceMappings", [])
        if one["DeviceName"] == found.get("RootDeviceName")
    ]
    disk = ec2.describe_volumes(VolumeIds=disks)["Volumes"][0] if disks else {}
    protection = ec2.describe_instance_attribute(InstanceId=id, Attribute="disableApiTermination")
    options = found.get("MetadataOptions", {})
    return Instance(
        type=found["InstanceType"],
        image=found["ImageId"],
        subnet=found.get("SubnetId", ""),
        key=found.get("KeyName", ""),
        group=next(iter(groups(found)), ""),
        profile=found.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2],
        gigabytes=disk.get("Size", 0),
        disk=disk.get("VolumeType", ""),
        encrypted=bool(disk.get("Encrypted")),
        tokens=options.get("HttpTokens", "optional"),
        hops=options.get("HttpPutResponseHopLimit", 1),
        protected=bool(protection["DisableApiTermination"].get("Value")),
    )


def groups(found: Mapping[str, Any]) -> list[str]:
    """Return the security groups of an instance's interfaces."""
    cards = [card["Groups"] for card in found.get("NetworkInterfaces", [])]
    own = [*found.get("SecurityGroups", []), *(group for card in cards for group in card)]
    return list(dict.fromkeys(group["GroupId"] for group in own))


# -- making ------------------------------------------------------------------------------------


def launch(
    account: Account, names: Names, wanted: Instance, subnets: Sequence[str], root: str
) -> str:
    """Make the instance in the first subnet whose zone has room, and return its id.

    `root` is the name of the image's disk. However often it is called, it buys one: whoever asks
    again with the same token gets the same instance.
    """
    from botocore.exceptions import ClientError

    for last, subnet in ((subnet == subnets[-1], subnet) for subnet in subnets):
        try:
            return _run(account, names, wanted, subnet, root)
        except ClientError as error:
            if last or code_of(error) not in ("InsufficientInstanceCapacity", "Unsupported"):
                raise
    raise AssertionError("a subnet at least")


def _run(account: Account, names: Names, wanted: Instance, subnet: str, root: str) -> str:
    ec2 = account.client("ec2")
    for attempt in range(1, 10):
        token = token_of(names, wanted.group, subnet, str(attempt))
        asked = parameters(names, wanted, subnet, root)
        made = patiently(
            lambda token=token, asked=asked: ec2.run_instances(**asked, ClientToken=token),  # type: ignore[misc]
            PROFILE_PATIENCE,
            ends=is_new_profile,
        )
        id = str(made["Instances"][0]["InstanceId"])
        # The token of one that somebody terminated by hand answers with that one.
        if described(account, id)["State"]["Name"] not in GONE:
            return id
    raise Exit("The instance is terminated again and again. Look into the console for the reason.")


def token_of(names: Names, *words: str) -> str:
    """Return what has EC2 know the same request again; the group is a new one after a destroy."""
    text = "/".join((names.unit, names.account, names.region, *words))
    return f"remote-mlflow-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def is_new_profile(error: Exception) -> bool:
    """Tell whether EC2 only has not heard yet of the instance profile."""
    return code_of(error) == "InvalidParameterValue" and "instance profile" in str(error).lower()


def parameters(names: Names, wanted: Instance, subnet: str, root: str) -> dict[str, Any]:
    """Return what RunInstances is asked for."""
    card = {
        "DeviceIndex": 0,
        "SubnetId": subnet,
        "Groups": [wanted.group],
        "AssociatePublicIpAddress": True,
        "DeleteOnTermination": True,
    }
    # The data lies in the bucket and its backups; a disk that stayed would be paid for unseen.
    disk = {
        "VolumeSize": wanted.gigabytes,
        "VolumeType": wanted.disk,
        "Encrypted": wanted.encrypted,
        "DeleteOnTermination": True,
    }
    found: dict[str, Any] = {
        "ImageId": wanted.image,
        "InstanceType": wanted.type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": wanted.key,
        "IamInstanceProfile": {"Name": wanted.profile},
        "NetworkInterfaces": [card],
        "BlockDeviceMappings": [{"DeviceName": root, "Ebs": disk}],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": wanted.tokens,
            "HttpPutResponseHopLimit": wanted.hops,
            "InstanceMetadataTags": "disabled",
        },
        "DisableApiTermination": wanted.protected,
        "TagSpecifications": names.tagging("instance", "volume", "network-interface"),
    }
    if wanted.type.startswith("t"):
        # `unlimited` bills whatever is used beyond the type's own CPU: the plan's price would be
        # the least, not the price (EC2 guide, "Burstable performance instances").
        found["CreditSpecification"] = {"CpuCredits": "standard"}
    return found


def settle(account: Account, id: str, wanted: Instance) -> None:
    """Have an instance be set up as it is wanted, as far as that can be changed at any time."""
    there = part(account, described(account, id))
    if (there.tokens, there.hops) != (wanted.tokens, wanted.hops):
        account.client("ec2").modify_instance_metadata_options(
            InstanceId=id, HttpTokens=wanted.tokens, HttpPutResponseHopLimit=wanted.hops
        )
    if not there.protected:
        mend.protect(account, id)
    if not there.profile:
        attach(account, id, wanted.profile)


def attach(account: Account, id: str, profile: str) -> None:
    """Lend an instance a role that has none; that it has this one is as good."""
    from botocore.exceptions import ClientError

    try:
        patiently(
            lambda: account.client("ec2").associate_iam_instance_profile(
                IamInstanceProfile={"Name": profile}, InstanceId=id
            ),
            PROFILE_PATIENCE,
            ends=is_new_profile,
        )
    except ClientError as error:
        if code_of(error) != "IncorrectState":
            raise
        if part(account, described(account, id)).profile != profile:
            raise


# -- states ------------------------------------------------------------------------------------


def await_state(account: Account, id: str, state: str) -> dict[str, Any]:
    """Return an instance once it is in a state; raises Exit where it does not get there."""

    def look() -> dict[str, Any] | None:
        found = described(account, id)
        return found if found["State"]["Name"] == state else None

    found = awaited(look, STATE_PATIENCE)
    if found is None:
        raise Exit(
            f"{id} is not {state} after 10 minutes. Run the same command again to go on waiting."
        )
    return found


def start(account: Account, id: str) -> dict[str, Any]:
    """Have an instance run, and return it once it does."""
    if described(account, id)["State"]["Name"] == "stopping":
        await_state(account, id, "stopped")
    account.client("ec2").start_instances(InstanceIds=[id])
    return await_state(account, id, "running")


def stop(account: Account, id: str) -> None:
    """Have an instance stop, and wait until it has."""
    if described(account, id)["State"]["Name"] == "pending":
        await_state(account, id, "running")
    account.client("ec2").stop_instances(InstanceIds=[id])
    await_state(account, id, "stopped")


def terminate(account: Account, id: str) -> None:
    """Take an instance away for good, and wait until it is gone."""
    ec2 = account.client("ec2")
    ec2.modify_instance_attribute(InstanceId=id, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[id])
    await_state(account, id, "terminated")


# -- its lasting address -------------------------------------------------------------------------


def addresses(account: Account, names: Names) -> list[dict[str, Any]]:
    """Return the Elastic IP addresses that bear this server's tag; the instance's own first."""
    found = account.client("ec2").describe_addresses(Filters=names.bears())["Addresses"]
    return sorted(found, key=lambda one: "AssociationId" not in one)


def address(account: Account, names: Names, id: str) -> Address | None:
    """Say whether there is a lasting address, and whether it is the instance's."""
    found = addresses(account, names)
    return Address(associated=found[0].get("InstanceId") == id) if found else None


def settle_address(account: Account, names: Names, id: str) -> str:
    """Have the instance own one lasting address, and return that.

    AllocateAddress knows no token: of two that an answer lost on its way has made, one goes back.
    """
    ec2 = account.client("ec2")
    if not addresses(account, names):
        ec2.allocate_address(Domain="vpc", TagSpecifications=names.tagging("elastic-ip"))
    found = awaited(lambda: addresses(account, names), seconds=30)
    if not found:
        raise Exit("The new Elastic IP address is not to be seen yet. Run the same command again.")
    first, *surplus = found
    for one in surplus:
        release(account, one)
    if first.get("InstanceId") != id:
        patiently(lambda: ec2.associate_address(InstanceId=id, AllocationId=first["AllocationId"]))
    return str(first["PublicIp"])


def release(account: Account, address: Mapping[str, Any]) -> None:
    """Give a lasting address back; that it is gone already is fine."""
    ec2 = account.client("ec2")
    if association := address.get("AssociationId"):
        _unless_gone(lambda: ec2.disassociate_address(AssociationId=association))
    _unless_gone(lambda: ec2.release_address(AllocationId=address["AllocationId"]))


def _unless_gone(remove: Callable[[], Any]) -> None:
    from botocore.exceptions import ClientError

    try:
        remove()
    except ClientError as error:
        if code_of(error) not in ("InvalidAssociationID.NotFound", "InvalidAllocationID.NotFound"):
            raise
