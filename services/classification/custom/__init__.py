"""Classifiers of a tenant's own: a linear head over the frozen vectors of the service's encoder.

heads.py       what a classifier is: labels and a matrix
examples.py    labelled texts as they come in, within bounds
fitting.py     the solver
measuring.py   which regularisation, and how good the result is
training.py    one training, from texts to a served classifier, beside everybody else's calls
store.py       what is on disk
owned.py       what is served, each tenant's apart
"""
