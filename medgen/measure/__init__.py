"""What can be seen in an image: segmenters, ratios, classifiers, quality."""
