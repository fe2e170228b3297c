"""The pinned table of tools.

A range of versions is accepted, because Debian's Prometheus is as old as its Debian. The releases could not be
downloaded where this was developed, so their hashes are unknown and they have `tried=False`. The images could not be
pulled either: to pin an image that you have reviewed, set its digest in the stack config (`docker.images`). The
engine's version follows the `pulumi` requirement in pyproject.toml.
"""

from __future__ import annotations

from .base import ContainerImage, Package, Program
from .debian import DebianPackage
from .gobuild import GoBuild
from .release import Release

_GITHUB = "https://github.com"

PACKAGES: tuple[Package, ...] = (
    Package(
        name="pulumi",
        version="3.259.0",
        at_least="3.259.0",
        below="4.0.0",
        programs=(Program("pulumi", version_args=("version",)),),
        ways=(
            Release(
                archive="pulumi-v{version}-{os}-{arch}.tar.gz",
                url=f"{_GITHUB}/pulumi/pulumi/releases/download/v{{version}}",
                checksums=f"{_GITHUB}/pulumi/pulumi/releases/download/v{{version}}/pulumi-{{version}}-checksums.txt",
                programs={"pulumi": "pulumi/pulumi"},
                arch_names={"amd64": "x64"},
            ),
            GoBuild(
                programs={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
                version_variable="github.com/pulumi/pulumi/sdk/v3/go/common/version.Version",
                version_prefix="v",
            ),
        ),
        by_hand="install Pulumi 3.259.0 or newer so that `pulumi` is on PATH (https://www.pulumi.com/docs/install), "
        "or Go 1.26.4 or newer to build it",
    ),
    Package(
        name="lakefs",
        version="1.86.0",
        at_least="1.86.0",
        below="2.0.0",
        programs=(Program("lakefs"),),
        ways=(
            Release(
                archive="lakeFS_{version}_{os}_{arch}.tar.gz",
                url=f"{_GITHUB}/treeverse/lakeFS/releases/download/v{{version}}",
                checksums=f"{_GITHUB}/treeverse/lakeFS/releases/download/v{{version}}/checksums.txt",
                programs={"lakefs": "lakefs"},
                os_names={"linux": "Linux", "darwin": "Darwin"},
                arch_names={"amd64": "x86_64"},
            ),
            GoBuild(
                programs={"lakefs": "github.com/treeverse/lakefs/cmd/lakefs"},
                version_variable="github.com/treeverse/lakefs/pkg/version.Version",
            ),
        ),
        by_hand="put `lakefs` 1.86.0 or newer on PATH (https://github.com/treeverse/lakeFS/releases), "
        "or install Go 1.26.4 or newer to build it",
        image=ContainerImage("treeverse/lakefs", "1.86.0", programs={"lakefs": "/app/lakefs"}),
    ),
    Package(
        name="prometheus",
        version="2.53.5",
        at_least="2.42.0",
        below="3.0.0",
        programs=(Program("prometheus"), Program("promtool")),
        ways=(
            Release(
                archive="prometheus-{version}.{os}-{arch}.tar.gz",
                url=f"{_GITHUB}/prometheus/prometheus/releases/download/v{{version}}",
                checksums=f"{_GITHUB}/prometheus/prometheus/releases/download/v{{version}}/sha256sums.txt",
                programs={
                    "prometheus": "prometheus-{version}.{os}-{arch}/prometheus",
                    "promtool": "prometheus-{version}.{os}-{arch}/promtool",
                },
            ),
            DebianPackage(
                package="prometheus", programs={"prometheus": "usr/bin/prometheus", "promtool": "usr/bin/promtool"}
            ),
        ),
        by_hand="put `prometheus` and `promtool` 2.42 or newer, below 3, on PATH (https://prometheus.io/download)",
        image=ContainerImage(
            "prom/prometheus", "v2.53.5", programs={"prometheus": "/bin/prometheus", "promtool": "/bin/promtool"}
        ),
    ),
    Package(
        name="alertmanager",
        # The newest version whose Go module contains its built web pages; later ones need a release.
        version="0.31.1",
        at_least="0.27.0",
        below="1.0.0",
        programs=(Program("alertmanager", aliases=("prometheus-alertmanager",)), Program("amtool")),
        ways=(
            Release(
                archive="alertmanager-{version}.{os}-{arch}.tar.gz",
                url=f"{_GITHUB}/prometheus/alertmanager/releases/download/v{{version}}",
                checksums=f"{_GITHUB}/prometheus/alertmanager/releases/download/v{{version}}/sha256sums.txt",
                programs={
                    "alertmanager": "alertmanager-{version}.{os}-{arch}/alertmanager",
                    "amtool": "alertmanager-{version}.{os}-{arch}/amtool",
                },
            ),
            # Debian's package does not work unpacked: its program reads a template in /usr/share.
            GoBuild(
                programs={
                    "alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager",
                    "amtool": "github.com/prometheus/alertmanager/cmd/amtool",
                },
                version_variable="github.com/prometheus/common/version.Version",
            ),
        ),
        by_hand="put `alertmanager` and `amtool` 0.27 or newer on PATH (https://prometheus.io/download), "
        "or install Go 1.26.4 or newer to build them",
        image=ContainerImage(
            "prom/alertmanager", "v0.31.1", programs={"alertmanager": "/bin/alertmanager", "amtool": "/bin/amtool"}
        ),
    ),
    Package(
        name="grafana",
        version="11.6.0",
        at_least="10.0.0",
        below="13.0.0",
        programs=(Program("grafana"),),
        ways=(
            Release(
                archive="grafana-{version}.{os}-{arch}.tar.gz",
                url="https://dl.grafana.com/oss/release",
                checksums="https://dl.grafana.com/oss/release/{archive}.sha256",
                programs={"grafana": "grafana-v{version}/bin/grafana"},
            ),
        ),
        by_hand="install Grafana 10 or newer so that `grafana` is on PATH (https://grafana.com/grafana/download), "
        "or set monitoring.grafana to 'off'",
        optional=True,
        image=ContainerImage(
            "grafana/grafana",
            "11.6.0",
            programs={"grafana": "/usr/share/grafana/bin/grafana"},
            homes={"grafana": "/usr/share/grafana"},
            # The image sets its own paths in the environment, which overrides the configuration.
            env={
                "GF_PATHS_CONFIG": "@{config}/grafana.ini",
                "GF_PATHS_DATA": "@{store:grafana}",
                "GF_PATHS_LOGS": "@{scratch}/logs",
                "GF_PATHS_PLUGINS": "@{scratch}/plugins",
                "GF_PATHS_PROVISIONING": "@{config}/provisioning",
            },
        ),
    ),
)

IMAGES: dict[str, ContainerImage] = {
    **{package.name: package.image for package in PACKAGES if package.image},
    # Runs only in containers, so it is not a package.
    "postgres": ContainerImage("postgres", "17.6-bookworm"),
}
"""Name -> image of each third-party program."""

PYTHON_IMAGE = ContainerImage("python", "3.11.14-slim-bookworm")
"""Base of tidemill's own images."""
