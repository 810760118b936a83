//! One source file, parsed: what the rules want to know of it, with line numbers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, UseTree,
    spanned::Spanned as _,
    visit::{self, Visit},
};

/// A file of a crate's module tree.
pub struct Source {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// The crate's name and the modules down to this file: `api::patch::merge`.
    pub module: Vec<String>,
    /// Compiled for tests only.
    pub test: bool,
    pub text: String,
    pub facts: Facts,
}

/// What was read off the syntax tree.
#[derive(Default)]
pub struct Facts {
    pub functions: Vec<Function>,
    /// Every path that is named, as written, `use` groups spelled out.
    pub paths: Vec<Named>,
    /// `unsafe`, `async`, `.await`, `.unwrap()`: keywords and calls that some rule forbids.
    pub marks: Vec<(Mark, At)>,
    /// `mod name;` declarations that other files answer.
    pub modules: Vec<Declared>,
}

pub struct Function {
    pub name: String,
    pub lines: usize,
    pub at: At,
}

pub struct Named {
    /// With `crate` and `super` resolved where they lead: `api::meta`.
    pub path: Vec<String>,
    pub at: At,
}

pub struct Declared {
    pub name: String,
    /// Of `#[path = "…"]`.
    pub file: Option<String>,
    pub test: bool,
    pub at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Unsafe,
    Async,
    Unwrap,
    Print,
    Unfinished,
    Ignored,
}

#[derive(Clone, Copy)]
pub struct At {
    pub line: usize,
    /// Inside `#[cfg(test)]` or `#[test]`.
    pub test: bool,
}

impl Source {
    pub fn parse(root: &Path, path: &Path, module: Vec<String>, test: bool) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let path = path.strip_prefix(root).unwrap_or(path).to_owned();
        let facts = read(&text, &module, test)
            .with_context(|| format!("{} is not Rust that compiles", path.display()))?;
        Ok(Self {
            path,
            module,
            test,
            text,
            facts,
        })
    }

    /// One line for a person.
    pub fn finding(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

/// The facts of one file's text.
pub fn read(text: &str, module: &[String], test: bool) -> Result<Facts> {
    let file = syn::parse_file(text)?;
    let depth = usize::from(test);
    let mut reader = Reader {
        facts: Facts::default(),
        module: module.to_vec(),
        test: depth,
    };
    reader.visit_file(&file);
    Ok(reader.facts)
}

struct Reader {
    facts: Facts,
    /// Grows inside inline modules.
    module: Vec<String>,
    /// How many test-only items enclose the current one.
    test: usize,
}

impl Reader {
    fn at(&self, span: Span) -> At {
        At {
            line: span.start().line,
            test: self.test > 0,
        }
    }

    fn mark(&mut self, mark: Mark, span: Span) {
        let at = self.at(span);
        self.facts.marks.push((mark, at));
    }

    fn named(&mut self, path: &[String], span: Span) {
        let at = self.at(span);
        let path = self.resolve(path);
        self.facts.paths.push(Named { path, at });
    }

    fn resolve(&self, path: &[String]) -> Vec<String> {
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => self.module[..1].to_vec(),
            Some("self" | "super") => self.module.clone(),
            _ => return path.to_vec(),
        };
        for part in path {
            match part.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                other => base.push(other.to_owned()),
            }
        }
        base
    }

    fn function(&mut self, name: String, whole: Span, asynchronous: Option<Span>) {
        let lines = whole.end().line + 1 - whole.start().line;
        let at = self.at(whole);
        self.facts.functions.push(Function { name, lines, at });
        if let Some(span) = asynchronous {
            self.mark(Mark::Async, span);
        }
    }

    fn signature(&mut self, signature: &syn::Signature, block: &syn::Block) {
        // From `fn` to the closing brace: attributes and documentation do not count.
        let whole = signature
            .span()
            .join(block.span())
            .unwrap_or_else(|| block.span());
        let asynchronous = signature.asyncness.map(|word| word.span);
        self.function(signature.ident.to_string(), whole, asynchronous);
        if let Some(word) = signature.unsafety {
            self.mark(Mark::Unsafe, word.span);
        }
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, prefix);
                }
            }
            UseTree::Name(name) => self.leaf(name.ident.to_string(), name.span(), prefix),
            UseTree::Rename(name) => self.leaf(name.ident.to_string(), name.span(), prefix),
            UseTree::Glob(glob) => self.leaf("*".into(), glob.span(), prefix),
        }
    }

    fn leaf(&mut self, name: String, span: Span, prefix: &[String]) {
        let path = [prefix, &[name]].concat();
        self.named(&path, span);
    }

    /// What stands in a macro call is no syntax tree: paths and keywords are read off its tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    if name == "unsafe" {
                        self.mark(Mark::Unsafe, ident.span());
                    }
                    if colons != 2 {
                        path.clear();
                    }
                    path.push(name);
                    if path.len() > 1 {
                        self.named(&path.clone(), ident.span());
                    }
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    path.clear();
                }
                _ => {
                    path.clear();
                    colons = 0;
                }
            }
        }
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|a| a.path().is_ident("path"))?;
    match &attribute.meta.require_name_value().ok()?.value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

/// `#[cfg(test)]`, `#[test]`, `#[tokio::test]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let last = attribute
            .path()
            .segments
            .last()
            .map(|s| s.ident.to_string());
        let configured = attribute.meta.require_list().is_ok_and(|list| {
            attribute.path().is_ident("cfg") && list.tokens.to_string() == "test"
        });
        configured || last.as_deref() == Some("test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let test = is_test(&item.attrs);
        self.test += usize::from(test);
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        } else {
            let at = self.at(item.span());
            let name = item.ident.to_string();
            let file = path_attribute(&item.attrs);
            self.facts.modules.push(Declared {
                name,
                file,
                test: at.test,
                at,
            });
        }
        self.test -= usize::from(test);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let test = is_test(&item.attrs);
        self.test += usize::from(test);
        self.signature(&item.sig, &item.block);
        if let Some(attribute) = item.attrs.iter().find(|a| a.path().is_ident("ignore")) {
            self.mark(Mark::Ignored, attribute.span());
        }
        visit::visit_item_fn(self, item);
        self.test -= usize::from(test);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let test = is_test(&item.attrs);
        self.test += usize::from(test);
        self.signature(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
        self.test -= usize::from(test);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.signature(&item.sig, block);
        } else if let Some(word) = item.sig.asyncness {
            self.mark(Mark::Async, word.span);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let test = is_test(&item.attrs);
        self.test += usize::from(test);
        if let Some(word) = item.unsafety {
            self.mark(Mark::Unsafe, word.span);
        }
        visit::visit_item_impl(self, item);
        self.test -= usize::from(test);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let test = is_test(&item.attrs);
        self.test += usize::from(test);
        self.use_tree(&item.tree, &mut Vec::new());
        self.test -= usize::from(test);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
            self.named(&names, path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call
            .path
            .segments
            .last()
            .map(|s| s.ident.to_string())
            .unwrap_or_default();
        match name.as_str() {
            "todo" | "unimplemented" | "dbg" => self.mark(Mark::Unfinished, call.span()),
            "print" | "println" | "eprint" | "eprintln" => self.mark(Mark::Print, call.span()),
            _ => {}
        }
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.mark(Mark::Unsafe, block.unsafe_token.span);
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.mark(Mark::Async, block.async_token.span);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_await(&mut self, expression: &'ast syn::ExprAwait) {
        self.mark(Mark::Async, expression.await_token.span);
        visit::visit_expr_await(self, expression);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() {
            self.mark(Mark::Unwrap, call.method.span());
        }
        visit::visit_expr_method_call(self, call);
    }
}
