"""`python -m duckling_train`, for launchers such as torchrun that start a module."""

from duckling_train.cli import main

main()
