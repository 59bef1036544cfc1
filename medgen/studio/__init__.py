"""The studio: a web page to draw, look at runs, rate images and watch datasets grow."""
