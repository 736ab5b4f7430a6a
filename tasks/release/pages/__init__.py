"""The pages of `tunegate ui`: a small read-only server and its templates."""
