"""Options of a SLURM cluster, as `plan` and `run` take them."""

import argparse
from typing import TYPE_CHECKING

from rislab.errors import ConfigError

if TYPE_CHECKING:
    from rislab.ablation.table import Profile
    from rislab.launch.slurm import Cluster


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster", "with --launcher slurm; over the profile's `cluster:` block")
    group.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where (default: %(default)s)")
    group.add_argument("--partition", metavar="P", help="SLURM partition")
    group.add_argument("--account", metavar="A", help="who pays")
    group.add_argument("--qos", metavar="Q", help="quality of service")
    group.add_argument("--constraint", metavar="C", help="features of nodes")
    group.add_argument("--time", metavar="T", help="limit of a job: D-HH:MM:SS, HH:MM:SS or minutes (24:00:00)")
    group.add_argument("--mem", metavar="M", help="memory a node")
    group.add_argument("--gpus-per-trial", type=int, metavar="N", help="of each node (default: trainer.devices)")
    group.add_argument("--cpus-per-trial", type=int, metavar="N", help="on each node (default: 1)")
    group.add_argument("--array-parallelism", type=int, metavar="N", help="jobs at once (default: 16)")
    group.add_argument("--trials-per-job", type=int, metavar="K", help="short trials packed into a job (default: 1)")
    group.add_argument("--at-once", type=int, metavar="M", help="of a job's trials, side by side (default: 1)")
    group.add_argument("--signal-seconds", type=int, metavar="S", help="warning before the limit (default: 120)")
    group.add_argument("--setup", action="append", metavar="LINE", help="shell line before the start; repeatable")
    group.add_argument("--sbatch", action="append", metavar="KEY=VALUE", help="further sbatch option; repeatable")


def cluster_of(options: argparse.Namespace, profile: "Profile") -> "Cluster":
    """What the profile's `cluster:` block and the command line request of a cluster."""
    from rislab.launch import slurm

    given = {name: getattr(options, name) for name in slurm.OPTIONS if hasattr(options, name)}
    if options.sbatch is not None:
        pairs = [text.partition("=") for text in options.sbatch]
        wrong = [text for text, (_, equals, _) in zip(options.sbatch, pairs, strict=True) if not equals]
        if wrong:
            raise ConfigError(f"--sbatch {wrong[0]!r}: expected KEY=VALUE")
        given["sbatch"] = {**profile.cluster.get("sbatch", {}), **{key: value for key, _, value in pairs}}
    return slurm.cluster(profile.cluster, given)
