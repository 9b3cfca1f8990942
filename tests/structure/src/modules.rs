//! The imports of modules, and the circles among them. An import of a name that another module hands on is one of where it is
//! defined; handing it on is none.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::source::{File, is_test};

type Module = Vec<String>;

/// The imports of each module.
pub(crate) struct Imports(BTreeMap<Module, BTreeSet<Module>>);

impl Imports {
    /// Groups of modules that import each other in a circle, the largest first.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        groups(&self.0)
    }

    /// The same of the crate's rooms, which are the modules at its root, each with all in it.
    pub(crate) fn circles_of_rooms(&self) -> Vec<Vec<String>> {
        let room = |module: &Module| module.iter().take(1).cloned().collect::<Module>();
        let mut rooms: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, to) in self.0.iter().flat_map(|(from, all)| all.iter().map(move |to| (room(from), room(to)))) {
            if from != to && !to.is_empty() {
                rooms.entry(from).or_default().insert(to);
            }
        }
        groups(&rooms)
    }
}

/// Reads the imports of a crate's files.
pub(crate) fn imports(files: &[File]) -> Imports {
    let modules: BTreeSet<&Module> = files.iter().map(|file| &file.module).collect();
    let mut handed_on: BTreeMap<(Module, String), Vec<String>> = BTreeMap::new();
    let mut paths: Vec<(&Module, Vec<String>)> = Vec::new();
    for file in files {
        let mut found = Found::default();
        found.visit_file(&file.syntax);
        for path in found.handed_on {
            if let Some(name) = path.last() {
                handed_on.insert((file.module.clone(), name.clone()), path.clone());
            }
        }
        paths.extend(found.paths.into_iter().map(|path| (&file.module, path)));
    }
    let resolve = |from: &Module, path: &[String]| resolve(&modules, &handed_on, from, path, 0);
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, path) in paths {
        if let Some(to) = resolve(from, &path).filter(|to| to != from) {
            imports.entry(from.clone()).or_default().insert(to);
        }
    }
    // The root of a library hands on; where it imports, that is what it is for.
    imports.remove(&Module::new());
    Imports(imports)
}

/// Every path of a file, as it is written.
#[derive(Default)]
struct Found {
    paths: Vec<Vec<String>>,
    handed_on: Vec<Vec<String>>,
}

impl Found {
    fn tree(&mut self, tree: &syn::UseTree, before: &[String], is_handed_on: bool) {
        let with = |ident: &syn::Ident| before.iter().cloned().chain([ident.to_string()]).collect::<Vec<_>>();
        let path = match tree {
            syn::UseTree::Path(path) => return self.tree(&path.tree, &with(&path.ident), is_handed_on),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.tree(item, before, is_handed_on));
            }
            syn::UseTree::Name(name) if name.ident == "self" => before.to_vec(),
            syn::UseTree::Name(name) => with(&name.ident),
            syn::UseTree::Rename(rename) => with(&rename.ident),
            syn::UseTree::Glob(_) => before.to_vec(),
        };
        if is_handed_on { self.handed_on.push(path) } else { self.paths.push(path) }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

/// The module in which the path's last name is defined; none if that is not in this crate.
fn resolve(
    modules: &BTreeSet<&Module>,
    handed_on: &BTreeMap<(Module, String), Vec<String>>,
    from: &Module,
    path: &[String],
    depth: usize,
) -> Option<Module> {
    let (mut at, mut rest) = (from.clone(), path);
    let is_module = |at: &Module, name: &String| {
        let inner: Module = at.iter().cloned().chain([name.clone()]).collect();
        modules.contains(&inner).then_some(inner)
    };
    match rest.first().map(String::as_str) {
        Some("crate") => (at, rest) = (Module::new(), rest.get(1..)?),
        Some("self" | "super") => {
            while let Some("self" | "super") = rest.first().map(String::as_str) {
                if rest.first().is_some_and(|name| name == "super") {
                    at.pop();
                }
                rest = rest.get(1..)?;
            }
        }
        Some(_) => {
            is_module(&at, rest.first()?)?;
        }
        None => return None,
    }
    while let Some(inner) = rest.first().and_then(|name| is_module(&at, name)) {
        (at, rest) = (inner, rest.get(1..)?);
    }
    if let Some(name) = rest.first()
        && let Some(path) = handed_on.get(&(at.clone(), name.clone())).filter(|_| depth < 4)
        && let Some(found) = resolve(modules, handed_on, &at, path, depth + 1)
    {
        return Some(found);
    }
    Some(at)
}

fn groups(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let all_from = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            for to in imports.get(module).into_iter().flatten() {
                if reached.insert(to) {
                    next.push(to);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, all_from(module))).collect();
    let leads_to = |from: &Module, to: &Module| reached.get(from).is_some_and(|reached| reached.contains(to));
    let mut groups: Vec<Vec<String>> = Vec::new();
    for module in imports.keys().filter(|module| leads_to(module, module)) {
        let name = module.join("::");
        if !groups.iter().flatten().any(|known| *known == name) {
            let others = imports.keys().filter(|other| leads_to(module, other) && leads_to(other, module));
            groups.push(others.map(|other| other.join("::")).collect());
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}
