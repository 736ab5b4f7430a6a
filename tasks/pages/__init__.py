"""What all pages share: the template environment, elements, the style, charts."""
