"""The output gate: are these outputs the reference's?"""
