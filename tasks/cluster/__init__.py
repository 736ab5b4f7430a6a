"""`engine: ray`: run the parts of steps on the nodes of a Ray cluster. The only folder that imports ray."""
