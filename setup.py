"""The build copies the shipped experiments into the package; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExperiments(build_py):
    """Put `experiments/*.yaml`, and the case file beside them, into `harness/shipped`."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout reads its own folder
            return
        target = Path(self.build_lib) / "harness" / "shipped"
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted([*Path("experiments").glob("*.yaml"), *Path("experiments").glob("*.py")]):
            shutil.copyfile(file, target / file.name)


setup(cmdclass={"build_py": BuildWithExperiments})
