"use strict";
// Text of users and models goes into the page by textContent alone, never as HTML.

const WORDS = {
  ko: {
    text: "문장", pair: "두 번째 문장 (두 문장 과제)", key: "API 키", look: "보기", morphemes: "형태소", pieces: "조각과 판별기의 판단",
    pieces_hint: "색이 진할수록 판별기가 바뀐 토큰이라고 봅니다. 조각을 누르면 생성기가 그 자리에 넣을 만한 것을 보여 줍니다.",
    no_generator: "색이 진할수록 판별기가 바뀐 토큰이라고 봅니다.", real: "원래 토큰", replaced: "바뀐 토큰", tasks: "과제",
    original: "원래대로", score: "점수", none: "이름이 없습니다", cut: "모델의 길이를 넘어 잘린 조각:", working: "계산하는 중…", suggestions: "생성기의 제안", example: "그 영화는 정말 재미있었다.", other: "English",
  },
  en: {
    text: "Sentence", pair: "Second sentence (tasks on two)", key: "API key", look: "Look", morphemes: "Morphemes", pieces: "Pieces, and what the discriminator thinks of them",
    pieces_hint: "The darker a piece, the more the discriminator takes it for a replaced token. Press one to see what the generator would put there.",
    no_generator: "The darker a piece, the more the discriminator takes it for a replaced token.", real: "real", replaced: "replaced", tasks: "Tasks",
    original: "as it was", score: "score", none: "no names", cut: "Pieces beyond the length of the model, cut off:", working: "Computing…", suggestions: "What the generator suggests", example: "그 영화는 정말 재미있었다.", other: "한국어",
  },
};
const element = (id) => document.getElementById(id);
const make = (tag, text = "", className = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
};
const percent = (value) => `${(100 * value).toFixed(1)} %`;

let language = (navigator.language || "ko").startsWith("ko") ? "ko" : "en";
let models = { models: [], has_pairs: false, has_generator: false };
let shown = { text: "", pair: null, swaps: {} }; // what the results on the page are about, whatever was typed since
let asked = 0; // answers to older questions are dropped

function speak() {
  const words = WORDS[language];
  document.documentElement.lang = language;
  for (const target of document.querySelectorAll("[data-word]")) target.textContent = words[target.dataset.word];
  if (!models.has_generator) document.querySelector("[data-word=pieces_hint]").textContent = words.no_generator;
  element("pieces").setAttribute("aria-label", words.pieces);
  element("suggestions").setAttribute("aria-label", words.suggestions);
  element("language").textContent = words.other;
  element("language").lang = language === "ko" ? "en" : "ko";
}

async function ask(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (element("key").value) headers["X-API-Key"] = element("key").value;
  const response = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json();
  if (response.status === 401) element("key_field").hidden = false;
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function look(wanted) {
  const mine = (asked += 1);
  element("message").textContent = WORDS[language].working;
  try {
    if (!models.models.length) await learn();
    const found = await ask("/demo/analyze", wanted);
    if (mine !== asked) return;
    shown = wanted;
    element("message").textContent = found.cut ? `${WORDS[language].cut} ${found.cut}` : "";
    show(found);
  } catch (error) {
    if (mine === asked) element("message").textContent = error.message;
  }
}

function show(found) {
  element("results").hidden = false;
  element("suggestions").replaceChildren();
  element("words").replaceChildren(
    ...found.words.map((word) => {
      const item = make("li", word.text);
      item.append(make("span", word.morphemes.join(" "), "morphemes"));
      return item;
    }),
  );
  element("pieces").replaceChildren(...found.pieces.map(pieceButton));
  element("tasks_section").hidden = !found.tasks.length;
  element("tasks").replaceChildren(...found.tasks.map(taskBox));
}

function pieceButton(piece, place) {
  const button = make("button", piece.piece, piece.swapped ? "swapped" : "");
  button.type = "button";
  if (piece.replaced !== null) {
    button.style.backgroundColor = `rgba(240, 138, 93, ${piece.replaced.toFixed(3)})`;
    button.append(make("small", percent(piece.replaced)));
  }
  button.disabled = !models.has_generator;
  button.setAttribute("aria-pressed", piece.swapped);
  button.addEventListener("click", () => suggest(place));
  return button;
}

async function suggest(place) {
  try {
    const mine = (asked += 1);
    const found = await ask("/demo/suggest", { text: shown.text, swaps: shown.swaps, place });
    if (mine !== asked) return;
    const buttons = found.suggestions.map((suggestion) => swapButton(`${suggestion.piece} ${percent(suggestion.probability)}`, place, suggestion.id));
    if (place in shown.swaps) buttons.push(swapButton(WORDS[language].original, place, null));
    element("suggestions").replaceChildren(...buttons);
    buttons[0].focus();
  } catch (error) {
    element("message").textContent = error.message;
  }
}

function swapButton(text, place, id) {
  const button = make("button", text);
  button.type = "button";
  button.addEventListener("click", async () => {
    const swaps = { ...shown.swaps };
    if (id === null) delete swaps[place];
    else swaps[place] = id;
    await look({ ...shown, swaps });
    element("pieces").children[place]?.focus();
  });
  return button;
}

function taskBox(answer) {
  const box = make("div", "", "task");
  box.append(make("h3", `${answer.task} (${answer.model})`));
  if (answer.probabilities) {
    for (const [label, value] of Object.entries(answer.probabilities)) box.append(bar(label, value, 1, percent(value)));
  } else if (answer.entities) {
    box.append(entities(shown.text, answer.entities));
  } else {
    box.append(make("p", `${WORDS[language].score} ${answer.score.toFixed(2)}`));
  }
  return box;
}

function bar(label, value, max, text) {
  const row = make("div", "", "bar");
  const meter = make("meter");
  meter.max = max;
  meter.value = value;
  meter.setAttribute("aria-label", label);
  row.append(make("span", label), meter, make("span", text));
  return row;
}

function entities(text, found) {
  const line = make("p", "", "entities");
  const characters = Array.from(text); // places count characters, not UTF-16 units
  let at = 0;
  for (const entity of found) {
    line.append(characters.slice(at, entity.start).join(""));
    const mark = make("mark", characters.slice(entity.start, entity.end).join(""));
    mark.append(make("small", entity.type));
    line.append(mark);
    at = entity.end;
  }
  line.append(characters.slice(at).join(""));
  if (!found.length) line.append(make("small", ` (${WORDS[language].none})`));
  return line;
}

async function learn() {
  models = await ask("/demo/models");
  element("pair_field").hidden = !models.has_pairs;
  speak();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  look({ text: element("text").value, pair: element("pair").value.trim() || null, swaps: {} });
});
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("form").requestSubmit();
  }
});
element("language").addEventListener("click", () => {
  language = language === "ko" ? "en" : "ko";
  speak();
  if (!element("results").hidden) look(shown);
});
element("text").value = WORDS.ko.example;
speak();
learn().catch((error) => {
  element("message").textContent = error.message;
});
