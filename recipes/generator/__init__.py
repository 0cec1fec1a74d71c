"""Parts of the recipe that trains the course's chest radiograph generator (see train_generator.py)."""
