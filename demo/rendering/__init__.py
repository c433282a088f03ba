"""Pure functions from data to HTML and pictures. No Gradio, no state."""
