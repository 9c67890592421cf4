"""Where an instance can be made, and of what: looked up before anything is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.records import dataclass
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

NO_VPC = (
    "{region} has no default VPC in this account. Set `subnet:` in fabric.yaml to a public subnet, "
    "or `vpc:` to a VPC that has one; none is made for you."
)

NO_SUBNET = (
    "{vpc} has no public subnet: none has a route to an internet gateway (igw-…). Set `subnet:` or "
    "`vpc:` in fabric.yaml to one that has."
)

NOT_OFFERED = (
    "{type} is not offered in {zones}, where the public subnets of {vpc} are. Set `subnet:` to one "
    "in {offered}."
)


@dataclass(frozen=True)
class Place:
    """A VPC, and its public subnets in zones that have the type, the first choice first."""

    vpc: str
    subnets: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A type of instance: its architecture as images name it, and if new accounts may have it."""

    type: str
    architecture: str
    free: bool


@dataclass(frozen=True)
class Image:
    """An image, the name of its disk, and how large that is at least."""

    id: str
    root: str
    gigabytes: int


# -- network -----------------------------------------------------------------------------------


def place(account: Account, type: str, vpc: str | None, subnet: str | None) -> Place:
    """Return where the instance can be: in the settings' subnet or VPC, else in the default VPC.

    A subnet is public when its route table leads to an internet gateway: that it hands out public
    addresses says nothing. Raises Exit that names the setting to set.
    """
    ec2 = account.client("ec2")
    if subnet:
        found = _subnets(account, "subnet-id", subnet)
        if not found:
            raise Exit(f"{account.region} has no subnet {subnet}. Fix `subnet:` in fabric.yaml.")
        vpc = str(found[0]["VpcId"])
    else:
        vpc = vpc or _default_vpc(account)
        found = _subnets(account, "vpc-id", vpc)
        if not found and not ec2.describe_vpcs(
            Filters=[{"Name": "vpc-id", "Values": [vpc]}]
        )["Vpcs"]:  # fmt: skip
            raise Exit(f"{account.region} has no VPC {vpc}. Fix `vpc:` in fabric.yaml.")
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    public = [one for one in found if is_public(one["SubnetId"], tables["RouteTables"])]
    if not public:
        if subnet:
            raise Exit(
                f"{subnet} is not public: its route table has no route to an internet gateway "
                "(igw-…). Set `subnet:` in fabric.yaml to one that has."
            )
        raise Exit(NO_SUBNET.format(vpc=vpc))
    offered = zones_of(account, type)
    fitting = [one["SubnetId"] for one in public if one["AvailabilityZone"] in offered]
    if not fitting:
        zones = ", ".join(sorted({one["AvailabilityZone"] for one in public}))
        there = ", ".join(sorted(offered)) or "no zone of this region: choose another region"
        raise Exit(NOT_OFFERED.format(type=type, zones=zones, vpc=vpc, offered=there))
    return Place(vpc, tuple(fitting))


def _subnets(account: Account, by: str, value: str) -> list[Mapping[str, Any]]:
    found = account.client("ec2").describe_subnets(Filters=[{"Name": by, "Values": [value]}])
    return sorted(found["Subnets"], key=lambda one: (one["AvailabilityZone"], one["SubnetId"]))


def _default_vpc(account: Account) -> str:
    filters = [{"Name": "is-default", "Values": ["true"]}]
    found = account.client("ec2").describe_vpcs(Filters=filters)["Vpcs"]
    if not found:
        raise Exit(NO_VPC.format(region=account.region))
    return str(found[0]["VpcId"])


def is_public(subnet: str, tables: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a subnet's route table, its own or else the VPC's main one, leads outside."""
    own = [table for table in tables if _serves(table, "SubnetId", subnet)]
    main = [table for table in tables if _serves(table, "Main", True)]
    return any(
        str(route.get("GatewayId", "")).startswith("igw-")
        and route.get("DestinationCidrBlock") == "0.0.0.0/0"
        and route.get("State", "active") == "active"
        for table in own or main
        for route in table["Routes"]
    )


def _serves(table: Mapping[str, Any], key: str, value: Any) -> bool:
    return any(one.get(key) == value for one in table.get("Associations", []))


def zones_of(account: Account, type: str) -> set[str]:
    """Return the zones of the region that offer a type."""
    pages = account.client("ec2").get_paginator("describe_instance_type_offerings")
    asked = pages.paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [type]}]
    )
    return {one["Location"] for page in asked for one in page["InstanceTypeOfferings"]}


# -- type and image ------------------------------------------------------------------------------


def kind(account: Account, type: str) -> Kind:
    """Return what EC2 says of a type."""
    found = account.client("ec2").describe_instance_types(InstanceTypes=[type])["InstanceTypes"][0]
    arm = "arm64" in found["ProcessorInfo"]["SupportedArchitectures"]
    return Kind(type, "arm64" if arm else "amd64", bool(found.get("FreeTierEligible")))


def free_types(account: Account) -> list[str]:
    """Return the types that an account on the free plan may have."""
    pages = account.client("ec2").get_paginator("describe_instance_types")
    asked = pages.paginate(Filters=[{"Name": "free-tier-eligible", "Values": ["true"]}])
    return sorted(one["InstanceType"] for page in asked for one in page["InstanceTypes"])


def image(account: Account, parameter: str) -> Image:
    """Return the image that a public parameter names; raises Exit where there is none."""
    from botocore.exceptions import ClientError

    try:
        found = account.client("ssm").get_parameter(Name=parameter)
    except ClientError as error:
        if code_of(error) != "ParameterNotFound":
            raise
        raise Exit(
            f"Canonical names no Ubuntu image in {account.region} ({parameter}). Choose another "
            "`region:`."
        ) from None
    id = str(found["Parameter"]["Value"])
    one = account.client("ec2").describe_images(ImageIds=[id])["Images"][0]
    root = str(one.get("RootDeviceName") or "/dev/sda1")
    sizes = [
        disk["Ebs"].get("VolumeSize", 0)
        for disk in one.get("BlockDeviceMappings", [])
        if "Ebs" in disk
    ]
    return Image(id, root, max(sizes, default=0))


# -- rights ------------------------------------------------------------------------------------


def refuse_without_rights(
    account: Account, names: Names, place: Place, asked: Mapping[str, str], lasting: bool
) -> None:
    """Raise botocore's ClientError at the first right of EC2's that is missing: nothing is made.

    `asked` are RunInstances' image and type; `lasting` is whether an Elastic IP is wanted. IAM and
    S3 know no DryRun: what is missing there their first call says, before anything is paid for.
    """
    kinds = ("instance", "volume", "network-interface")
    run = {**asked, "MinCount": 1, "MaxCount": 1, "SubnetId": place.subnets[0]}
    calls: dict[str, dict[str, Any]] = {
        "run_instances": {**run, "TagSpecifications": names.tagging(*kinds)},
        "create_security_group": {
            "GroupName": names.unit,
            "Description": "remote-mlflow",
            "VpcId": place.vpc,
            "TagSpecifications": names.tagging("security-group"),
        },
        "import_key_pair": {
            "KeyName": names.unit,
            "PublicKeyMaterial": b"ssh-ed25519 AAAA",
            "TagSpecifications": names.tagging("key-pair"),
        },
    }
    if lasting:
        calls["allocate_address"] = {
            "Domain": "vpc",
            "TagSpecifications": names.tagging("elastic-ip"),
        }
    for operation, parameters in calls.items():
        _try(account.client("ec2"), operation, parameters)


def _try(ec2: Any, operation: str, parameters: Mapping[str, Any]) -> None:
    from botocore.exceptions import ClientError

    try:
        getattr(ec2, operation)(**parameters, DryRun=True)
    except ClientError as error:
        # A name that is taken is not a right that is missing, nor is a key that is none.
        fine = ("DryRunOperation", "InvalidGroup.Duplicate", "InvalidKeyPair.Duplicate",
                "InvalidKey.Format")  # fmt: skip
        if code_of(error) not in fine:
            raise
