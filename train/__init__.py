"""Training: the sample model and the data it is trained on. Deployment never imports this."""
