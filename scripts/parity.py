"""Shows how far exports and Keras differ when the processor computes differently.

oneDNN on and off, with one thread and two, stand for other processors. Each setting is a separate
process, which exports a run and then compares every export made so far, its own and the others',
with Keras in that setting. `export` itself refuses large differences; here they are shown.

    python scripts/parity.py --run-dir runs/pretrained
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# runs from a checkout, installed or not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SETTINGS = [
    {"TF_ENABLE_ONEDNN_OPTS": onednn, "TF_NUM_INTRAOP_THREADS": threads}
    for onednn, threads in itertools.product("01", "12")
]


def main() -> None:
    """Exports and compares under every setting, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--export-to", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export_to:
        export_and_compare(arguments.run_dir, arguments.export_to)
        return
    print("oneDNN  threads  export      probabilities     maps    words")
    with tempfile.TemporaryDirectory() as exports:
        command = [sys.executable, *sys.argv, "--export-to", exports]
        for setting in SETTINGS:
            subprocess.run(command, check=True, env=os.environ | setting)


def export_and_compare(run_dir: Path, exports: Path) -> None:
    """Does one setting's share: exports to `exports`, and compares all exports there."""
    from eczema_tf.serving.exported import list_versions
    from eczema_tf.workflows import run_folder
    from eczema_tf.workflows.export import build_served, export_model
    from eczema_tf.workflows.parity import check_parity

    trained = run_folder.load_model(run_dir)
    new = export_model(trained, run_dir, exports)
    served = build_served(trained, run_dir)
    onednn, threads = (os.environ[name] for name in SETTINGS[0])
    for version in list_versions(exports):
        parity = check_parity(version, served, trained, run_dir)
        whose = "its own" if version == new else f"the {version.name}."
        print(
            f"{'on' if onednn == '1' else 'off':<8}{threads:<9}{whose:<12}"
            f"{parity.probability:13.1e}{parity.heatmap:9.1e}{parity.token_score:9.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
