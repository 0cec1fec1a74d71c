// What a notebook's widgets are and show; controls.py uses them by hand.
window.course = (() => {
    const OUTPUT = '.jp-Cell-outputArea > .jp-OutputArea-child > .jp-OutputArea-output';
    const USABLE = "input, select, textarea, button, summary, [tabindex='0'], [contenteditable=true]";
    const WIDGET = '.jupyter-widgets, .widget-toggle-buttons, .widget-radio';
    const ONE_OF_SEVERAL = '.widget-toggle-buttons, .widget-radio';
    const KINDS = {
        slider: '[role=slider]',
        readout: '.widget-slider .widget-readout',
        list: 'select',
        tick: '[type=checkbox], [type=radio]',
        number: '[type=number]',
        text: '[type=text], textarea',
        toggle: '.widget-toggle-button',
        button: 'button, summary',
    };
    const FAILED = '.jupyter-widgets-error-widget, .jupyter-widgets-disconnected';
    const SAYS_SO = /Error (displaying|creating) widget|Loading widget|javascript error/;
    const outputs = () => [...document.querySelectorAll(OUTPUT)];
    const box = e => e.closest(`.widget-inline-hbox, ${ONE_OF_SEVERAL}`) ?? e;
    const words = e => e?.innerText.replaceAll('\u200b', '').trim();
    const kind = e => Object.keys(KINDS).find(name => e.matches(KINDS[name]));
    const value = e => ({
        slider: () => e.ariaValueNow,
        readout: () => e.innerText,
        list: () => [...e.selectedOptions].map(option => option.index).join(),
        tick: () => e.checked,
        toggle: () => e.classList.contains('mod-active'),
    }[kind(e)] ?? (() => e.value))();
    const beside = e => e.closest(OUTPUT).innerHTML.replace(box(e).outerHTML, '');
    const visible = e => e.checkVisibility({visibilityProperty: true}) && e.getBoundingClientRect().height > 4;

    return {
        controls: () => outputs().flatMap(output => [...output.querySelectorAll(USABLE)]).filter(visible),
        widgets: () => outputs().filter(output => output.querySelector(WIDGET)).length,
        describe: e => {
            const label = [box(e).querySelector('.widget-label'), e.closest('button, summary, label')];
            return {
                kind: kind(e) ?? 'unknown control',
                label: label.map(words).filter(text => text).join(', '),
                disabled: Boolean(e.disabled || e.closest('[disabled]')),
            };
        },
        // Another button of a group in which this one is pressed already, else null.
        other: e => value(e) === true && e.closest(ONE_OF_SEVERAL)
            ? [...box(e).querySelectorAll('button, input')].find(one => one !== e) : null,
        next: e => (e.selectedIndex + 1) % e.length,
        atEnd: e => (e.ariaValueMax ?? e.max) === (e.ariaValueNow ?? e.value),
        otherEnd: e => {
            const slider = box(e).querySelector(KINDS.slider);
            return course.atEnd(slider) ? slider.ariaValueMin : slider.ariaValueMax;
        },
        remember: e => { e.before = {value: value(e), beside: beside(e)}; },
        same: e => [
            ...(kind(e) !== 'button' && value(e) === e.before.value ? ['the same value'] : []),
            ...(beside(e) === e.before.beside ? ['the same beside it'] : []),
        ],
        faults: () => outputs().flatMap(output => {
            const inside = [output, ...output.querySelectorAll('img, .widget-html')];
            const blank = inside.some(e => !visible(e) || e.matches('img') && !e.naturalWidth);
            const failed = output.querySelector(FAILED) || SAYS_SO.test(output.innerText);
            const boxes = output.querySelector(WIDGET) ? [output, ...output.querySelectorAll('.widget-container')] : [];
            const cut = boxes.some(e => e.scrollWidth > e.clientWidth + 4);
            const red = output.matches("[data-mime-type*='error'], [data-mime-type*='stderr']");
            return Object.entries({blank, cut, failed, red}).filter(([, so]) => so).map(([name]) => `an output is ${name}`);
        }),
    };
})();
