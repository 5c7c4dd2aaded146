"""`python -m dreambooth_operator`."""

import sys

from dreambooth_operator.main import main

sys.exit(main())
