"""What all pages share: the template environment, elements, the style, charts. It knows nothing of runs and tickets."""
