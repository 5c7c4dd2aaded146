"""`python -m kubectl_dreambooth`."""

from kubectl_dreambooth.cli import main

main()
