"""``python -m watchkeeper.training.new``: write the project of a model from a table.

``tables`` reads the cells, ``findings`` describes each column, ``target`` chooses the task,
``decisions`` turns findings into a declaration, ``project`` writes the files.
"""
