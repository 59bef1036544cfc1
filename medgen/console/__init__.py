"""What a person sees in the terminal: steps as they happen, then tables of what came out.

Progress goes to stderr and answers to stdout; both degrade to plain lines when they are no
terminal. Takes records and prints them; knows nothing of how they came about.
"""
