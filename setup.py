"""How this project installs. Every dependency has a lower and an upper bound: what was resolved and tested is what users get."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent

# Lower bounds: the oldest release known to hold what is used here. Upper bounds: the next release that may break it.
REQUIRED = [
    "tensorflow>=2.18,<2.22",  # 2.18 and 2.19 have no wheels for Python 3.13
    "numpy>=1.26,<3",
    "absl-py>=2.0,<3",
    "konlpy>=0.6,<0.7",
    "mecab-python3>=1.0.9,<2",
    "python-mecab-ko-dic>=2.1.1,<3",
    "tokenizers>=0.20,<0.24",
    "sentencepiece>=0.2.2,<0.3",  # before, crafted .model files overflowed the heap or the stack; 0.2.0 crashed in training
    "safetensors>=0.4.3,<0.9",
    "scikit-learn>=1.5,<2",
    "scipy>=1.11,<2",
    "seqeval>=1.2.2,<2",
    "tensorboard>=2.18,<2.22",
    "tqdm>=4.66.3,<5",
    "matplotlib>=3.8,<4",
    "rich>=13.8,<16",
    "ijson>=3.2,<4",
    "zstandard>=0.22,<0.26",
    "PyYAML>=6.0,<7",
]
EXTRAS = {
    "beam": ["apache-beam>=2.70,<3"],  # data building on Dataflow, Flink, Spark
    "dedup": ["datasketch>=1.6.5,<3"],  # near duplicates
    "search": ["optuna>=4.0,<5"],  # hyper-parameter search
    "sentences": ["kiwipiepy>=0.22,<0.25"],  # sentence ends without punctuation
    # Other formats; tensorflow-text has no wheels for Python 3.10 at the newer TensorFlows, and is not needed for ONNX.
    "export": [
        'tensorflow-text>=2.18,<2.22; python_version >= "3.11"',
        "tf2onnx>=1.17,<2",
        "onnx>=1.21,<2",
        "onnxruntime>=1.20,<2",
    ],
    "serve": [
        'tensorflow-text>=2.18,<2.22; python_version >= "3.11"',
        "starlette>=1.3.1,<2",
        "uvicorn>=0.32,<1",
        "prometheus-client>=0.21,<1",
    ],
    "dev": [
        "pytest>=9.0.3,<10",
        "pytest-xdist>=3.6,<4",  # tests in several processes
        "hypothesis>=6.100,<7",
        "ruff>=0.6,<0.18",
        "mypy>=1.11,<3",
        "httpx>=0.27,<1",  # what starlette's test client asks with
        "aiohttp>=3.14.3,<4",  # the clients of benchmarks/serving.py
        # No wheels for Python 3.10 at the newer TensorFlows; what tests it skips there.
        'tensorflow-text>=2.18,<2.22; python_version >= "3.11"',
    ],
    "fuzz": ['atheris>=3,<4; python_version >= "3.11"'],  # benchmarks/fuzzing.py
    "torch": ["torch>=2.10,<3"],  # fine-tuning from pytorch_model.bin; before 2.10 weights_only was not safe
    "gpu": ["tensorflow[and-cuda]>=2.18,<2.22"],
    # Referees for the parity tests. The exact torch: other releases may compute the same formula in another order.
    "parity": ["torch==2.13.0", "transformers>=5.10,<6"],
}

setup(
    name="dialog-koelectra-tf2",
    version="0.1.0",
    description="ELECTRA for Korean on TensorFlow 2: from raw text to a pre-trained model and task scores",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["model", "pretrain", "finetune", "finetune.*", "export", "server"]),
    package_data={"server": ["page/*"]},
    py_modules=sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "setup"),
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
