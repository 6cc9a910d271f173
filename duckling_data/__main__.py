"""`python -m duckling_data` is `duckling-data`."""

from duckling_data.cli import main

main()
