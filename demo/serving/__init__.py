"""Between visitors and the page: uploads, memory, security, the API. No page content."""
