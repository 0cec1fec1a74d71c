// What a prompt becomes, and what is wrong with it: token ids, words never read, and what looks like an identifier.
// The same answers as the generator's tokenizer and medimgen.prompts in Python.

// Python's idea of a word character and of a space, written out because \w and \s mean less in JavaScript.
const SPACE = "\\p{White_Space}\\x1c-\\x1f";

// Ids of the words of `text`, without start, end and padding. `facts` is the tokenizer in generator.json.
export function wordIds(text, facts) {
  const marks = Object.keys(facts.vocabulary).filter((word) => word.startsWith("<"));
  const pieces = text.split(new RegExp(`(${marks.join("|")})`));
  return pieces.flatMap((piece, i) => (i % 2 ? [piece] : clean(piece, facts).split(/\p{White_Space}+/u)))
    .filter((word) => word)
    .map((word) => (Object.hasOwn(facts.vocabulary, word) ? facts.vocabulary[word] : facts.unknown));
}

function clean(text, facts) {
  for (const step of facts.clean) {
    if (step.do === "lower") text = text.toLowerCase();
    else if (step.String) text = text.replaceAll(step.String, step.by);
    else text = text.replace(new RegExp(unicode(step.Regex), "gu"), step.by);
  }
  return text;
}

// \w of the tokenizer (Unicode UTS 18, annex C).
const unicode = (source) => source.replaceAll("\\w", "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}").replaceAll("\\s", "\\p{White_Space}");

// Int32Array of the fixed length that the text encoder takes, and how many words did not fit.
export function tokens(text, facts) {
  const room = facts.length - facts.start.length - facts.end.length;
  const words = wordIds(text, facts);
  const ids = new Int32Array(facts.length).fill(facts.pad);
  ids.set([...facts.start, ...words.slice(0, room), ...facts.end]);
  return { ids, cut: Math.max(0, words.length - room) };
}

// Words that the generator never read, as they were written, each once.
export function unseen(text, facts) {
  const words = new Set(text.match(new RegExp(`[^${SPACE},.;:!?()"]+`, "gu")) ?? []);
  return [...words].filter((word) => wordIds(word, facts).includes(facts.unknown));
}

// The first stretch that has the form of a person's identifier: {kind, letter, outline}, or null.
// `rules` are the course's patterns, tried in order; what one of them found is hidden from the next.
// A pattern that marks a word as `word` finds nothing if the generator read that word in captions (`known`).
export function identifier(text, rules, known) {
  const key = (word) => word.toLowerCase().replaceAll("-", "");
  for (const rule of rules) {
    for (const match of text.matchAll(new RegExp(rule.pattern, "gu"))) {
      if (!known.includes(key(match.groups?.word ?? ""))) {
        return { ...rule, outline: match[0].replace(/[\p{L}\p{N}_]/gu, "•") };
      }
    }
  }
  return null;
}
