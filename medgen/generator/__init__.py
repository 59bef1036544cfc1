"""What draws: encoders, U-Net, backends, sampling and training."""
