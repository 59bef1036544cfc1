"""What draws: encoders, U-Net, backends, sampling and training."""

import logging

# diffusers imports it where it is installed, and it warns of kernels that nothing here needs.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
