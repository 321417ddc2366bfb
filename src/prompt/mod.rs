//! Templates, variables, and the prompts that are sent.
