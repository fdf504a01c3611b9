//! Reads declarations out of our own Rust source. Not a parser: it knows the few forms in which
//! `symvirt_ffi` and the exports are written, and the tests fail when it finds nothing.

/// A `pub struct` and the names of its public fields.
#[derive(Debug)]
pub struct DeclaredStruct {
    /// Rust name.
    pub name: String,
    /// In order.
    pub fields: Vec<String>,
}

/// A `pub const` whose doc comment begins with the name of its C original.
#[derive(Clone, Debug)]
pub struct Constant {
    /// For example `UCP_PARAM_FIELD_FEATURES`.
    pub c_name: String,
    /// The initializer as written, for example `1 << 0` or `Status(-2)`.
    pub value: String,
    /// First minor version of UCX 1.x that has it, if the comment says `(from 1.14)`.
    pub from_minor: Option<u32>,
}

/// Arguments and result of a function, as Rust types.
#[derive(Debug)]
pub struct Function {
    /// Without `ucp_`.
    pub name: String,
    /// Types only.
    pub arguments: Vec<String>,
    /// `None` is void.
    pub result: Option<String>,
}

/// All `#[repr(C)]` structs.
pub fn structs(sources: &[&str]) -> Vec<DeclaredStruct> {
    let mut found = Vec::new();
    for source in sources {
        for part in source.split("#[repr(C)]").skip(1) {
            let name = between(part, "pub struct ", " {").expect("a struct after repr(C)");
            let body = between(part, "{\n", "\n}").expect("a struct body");
            // Fields are at the first level of indentation; callback arguments are deeper.
            let fields = body
                .lines()
                .filter_map(|line| line.strip_prefix("    pub "))
                .filter_map(|line| line.split_once(':'))
                .map(|(field, _)| field.to_owned())
                .collect();
            found.push(DeclaredStruct {
                name: name.to_owned(),
                fields,
            });
        }
    }
    found
}

/// All constants with a C name. `SHIFT` in an initializer is `UCP_DATATYPE_SHIFT`.
pub fn constants(source: &str) -> Vec<Constant> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for pair in lines.windows(2) {
        let [doc, declaration] = pair else { continue };
        let (Some(doc), Some((_, value))) = (
            doc.strip_prefix("/// `UC"),
            declaration
                .strip_prefix("pub const ")
                .and_then(|rest| rest.split_once(" = ")),
        ) else {
            continue;
        };
        let name = doc
            .split('`')
            .next()
            .expect("split yields at least one part");
        found.push(Constant {
            c_name: format!("UC{name}"),
            value: value.trim_end_matches(';').to_owned(),
            from_minor: between(doc, "(from 1.", ")").map(|minor| {
                minor
                    .parse()
                    .unwrap_or_else(|_| panic!("version in the comment of UC{name}"))
            }),
        });
    }
    found
}

/// All functions introduced by `marker`, which ends where the name begins.
pub fn functions(source: &str, marker: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for line_start in source
        .match_indices(marker)
        .map(|(at, _)| at + marker.len())
    {
        let rest = &source[line_start..];
        let Some(open) = rest.find('(') else { continue };
        let name = &rest[..open];
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            continue;
        }
        found.push(signature(name, &rest[open..]));
    }
    found
}

/// Reads `(a: A, b: B) -> R` followed by `;`, `{`, `>` or `,`.
pub fn signature(name: &str, text: &str) -> Function {
    let close = text
        .find(')')
        .unwrap_or_else(|| panic!("arguments of {name} do not end"));
    let arguments = text[1..close]
        .split(',')
        .map(str::trim)
        .filter(|argument| !argument.is_empty())
        .map(|argument| {
            let ty = argument.split_once(':').map_or(argument, |(_, ty)| ty);
            ty.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    let result = text[close + 1..]
        .trim_start()
        .strip_prefix("->")
        .map(|rest| {
            let end = rest.find([';', '{', '>', ',']).unwrap_or(rest.len());
            rest[..end].trim().to_owned()
        });
    Function {
        name: name.to_owned(),
        arguments,
        result,
    }
}

/// The parameters of a C function, each as declared (`const void *buffer`), from preprocessed
/// headers.
pub fn parameters(headers: &str, name: &str) -> Option<Vec<String>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let declared = |&(at, _): &(usize, &str)| {
        !headers[..at].ends_with(is_name)
            && headers[at + name.len()..].trim_start().starts_with('(')
    };
    let (at, _) = headers.match_indices(name).find(declared)?;
    // No parameter of UCP is a bare function pointer: the first closing parenthesis ends the list.
    let list = between(&headers[at..], "(", ")")?;
    let words = |parameter: &str| parameter.split_whitespace().collect::<Vec<_>>().join(" ");
    let all = list.split(',').map(words);
    Some(
        all.filter(|parameter| !parameter.is_empty() && parameter != "void")
            .collect(),
    )
}

/// What stands between two markers.
pub fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let start = text.find(from)? + from.len();
    let length = text[start..].find(to)?;
    Some(&text[start..start + length])
}
