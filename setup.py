"""Build of rtinteract: `kernels/` and `training/` are mapped into the package, both names being taken elsewhere."""

from setuptools import setup

INFERENCE = [
    "torch>=2.10", "numpy>=1.26", "safetensors>=0.5", "tokenizers>=0.20", "triton>=3.5; sys_platform == 'linux'", "typer>=0.15",
]
VIEW = ["pillow>=11"]
GLTF = ["pygltflib>=1.16"]
TRAIN = ["tqdm>=4.66", "tensorboard>=2.17", "scipy>=1.13"] + VIEW

setup(
    name="rtinteract",
    version="0.1.0",
    description="Embeddable real-time runtime for two-person motion",
    license="MIT",
    python_requires=">=3.11",
    packages=["rtinteract", "rtinteract.cli", "rtinteract.motion", "rtinteract.features", "rtinteract.kernels",
              "rtinteract.training"],
    package_dir={"rtinteract.kernels": "kernels", "rtinteract.training": "training"},
    package_data={"rtinteract": ["assets/*"]},
    install_requires=INFERENCE,
    extras_require={
        "demo": VIEW + GLTF,
        "view": VIEW,
        "train": TRAIN,
        "test": ["pytest>=8", "pytest-benchmark>=5", "ruff>=0.9"] + TRAIN + GLTF,
    },
    entry_points={"console_scripts": ["rtinteract=rtinteract.cli:main"]},
)
