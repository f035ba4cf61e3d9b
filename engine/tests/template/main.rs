//! Chat templates: published ones against the library that they were written for, the language row by row, and
//! whatever else may come. Hostile ones are in `template_attacks`.

mod any;
mod api;
mod published;
